// Which linears of the base model an adapter changes, as PEFT finds them.
//
// PEFT walks over the names of all modules of the model, asks for each whether
// the configuration takes it, and refuses what is neither Linear nor Embedding.
// So do we, over the names that a model of the configuration has.
//
// Pure.

#ifndef LORIKEET_ADAPTERS_TARGET_MODULES_H_
#define LORIKEET_ADAPTERS_TARGET_MODULES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "adapters/peft_config.h"
#include "kernels/linear_id.h"
#include "model/config.h"

namespace lorikeet {

// One linear that is adapted.
struct TargetModule {
  LinearId id;
  std::string name;  // "model.layers.0.self_attn.q_proj"
  int64_t in_dim = 0;
  int64_t out_dim = 0;
};

struct TargetModules {
  std::vector<TargetModule> modules;  // ascending LinearId, not empty
  std::vector<std::string> warnings;  // entries that take nothing
};

// Errors: INVALID_ARGUMENT naming the key if nothing is taken, or something
// that is no Linear; UNIMPLEMENTED for embed_tokens and lm_head.
absl::StatusOr<TargetModules> FindTargetModules(const PeftConfig& peft,
                                                const ModelConfig& model);

// A module of the base model, as Hugging Face names it.
struct ModuleName {
  enum class Kind { kOther, kLinear, kEmbedding, kLmHead };
  std::string name;
  Kind kind = Kind::kOther;
  LinearId id;  // kLinear
};

// All modules of a model of that configuration, parents first.
std::vector<ModuleName> ModuleNames(const ModelConfig& model);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_TARGET_MODULES_H_
