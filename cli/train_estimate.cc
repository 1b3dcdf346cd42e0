#include "cli/train_estimate.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file_system.h"
#include "base/status.h"
#include "base/text.h"
#include "cli/table.h"
#include "train/memory_estimate.h"

namespace lorikeet {
namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;

DType StoredType(const ModelConfig& config) {
  if (config.dtype == "float32") return DType::kF32;
  if (config.dtype == "float16") return DType::kF16;
  return DType::kBF16;
}

std::string Bytes(int64_t bytes) {
  return HumanBytes(static_cast<uint64_t>(bytes));
}

std::string Share(double share) {
  return absl::StrFormat("%.4g %%", 100 * share);
}

}  // namespace

absl::Status PrintTrainingEstimate(const std::string& dir,
                                   const TrainingOptions& options,
                                   std::optional<DType> dtype) {
  PosixFileSystem fs;
  ASSIGN_OR_RETURN(const std::string text,
                   fs.ReadFile(JoinPath(dir, "config.json"), kMaxConfigBytes));
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfig::Parse(text));
  const DType base = dtype.value_or(StoredType(config));
  ASSIGN_OR_RETURN(const MemoryEstimate lora,
                   EstimateLora(config, options, base));
  const MemoryEstimate full = EstimateFull(config, base);
  const std::string lora_title =
      absl::StrCat(options.use_dora ? "DoRA r=" : "LoRA r=", options.rank);
  Table table({{"", Table::Align::kLeft},
               {lora_title, Table::Align::kRight},
               {"full", Table::Align::kRight}});
  const auto add = [&](const char* what, auto value) {
    table.AddRow({what, value(lora), value(full)});
  };
  using E = MemoryEstimate;
  add("parameters", [](const E& e) { return absl::StrCat(e.parameters); });
  add("trained", [](const E& e) { return absl::StrCat(e.trained_parameters); });
  add("trained share", [](const E& e) { return Share(e.trained_share()); });
  add("weights", [](const E& e) { return Bytes(e.weight_bytes); });
  add("trained beside them", [](const E& e) { return Bytes(e.trained_bytes); });
  add("gradients", [](const E& e) { return Bytes(e.gradient_bytes); });
  add("optimizer state", [](const E& e) { return Bytes(e.optimizer_bytes); });
  add("sum, without activations",
      [](const E& e) { return Bytes(e.total_bytes()); });
  add("checkpoint of the result",
      [](const E& e) { return Bytes(e.checkpoint_bytes); });
  std::fputs(table.ToString().c_str(), stdout);
  std::printf("checkpoint: %.0f times smaller; base kept in %s\n",
              static_cast<double>(full.checkpoint_bytes) /
                  static_cast<double>(lora.checkpoint_bytes),
              Name(base));
  return absl::OkStatus();
}

}  // namespace lorikeet
