// Any bytes as adapter_config.json: a status, or a choice of modules with
// ranks and scalings that a reader may multiply without overflow.

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "adapters/module_pattern.h"
#include "adapters/peft_config.h"
#include "adapters/target_modules.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lorikeet;  // NOLINT: a fuzz target is a leaf
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<PeftConfig> peft = PeftConfig::Parse(text);
  if (!peft.ok()) return 0;
  CHECK(peft->r >= 1 && peft->lora_alpha > 0);
  CHECK(std::isfinite(peft->lora_alpha));

  ModelConfig model;
  model.model_type = "qwen3";
  model.hidden_size = 64;
  model.intermediate_size = 96;
  model.num_layers = 2;
  model.num_heads = 4;
  model.num_kv_heads = 2;
  model.head_dim = 16;
  model.qk_norm = true;
  const absl::StatusOr<TargetModules> targets = FindTargetModules(*peft, model);
  if (!targets.ok()) return 0;
  CHECK(!targets->modules.empty());

  const auto ranks = PatternTable::Compile("rank_pattern", peft->rank_pattern);
  const auto alphas =
      PatternTable::Compile("alpha_pattern", peft->alpha_pattern);
  if (!ranks.ok() || !alphas.ok()) return 0;
  for (const TargetModule& module : targets->modules) {
    const auto rank = ranks->Find(module.name);
    if (rank.ok() && rank->has_value()) CHECK(**rank >= 1 && **rank < 3e9);
    const auto alpha = alphas->Find(module.name);
    if (alpha.ok() && alpha->has_value()) CHECK(**alpha > 0);
  }
  return 0;
}
