// Which modules of the base model an adapter changes, as PEFT finds them.
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

// One linear, or the embedding, that has a low-rank part.
struct TargetModule {
  LinearId id;
  std::string name;  // "model.layers.0.self_attn.q_proj"
  // What rank_pattern and alpha_pattern are asked: `name`, or of a module that
  // is tied to another one that one's.
  std::string pattern_name;
  int64_t in_dim = 0;
  int64_t out_dim = 0;
};

struct TargetModules {
  std::vector<TargetModule> modules;  // ascending LinearId, not empty
  std::vector<std::string> warnings;  // entries that take nothing
};

// With ensure_weight_tying on a tied base embed_tokens and lm_head are taken
// together.
//
// Errors: INVALID_ARGUMENT naming the key if nothing is taken, or something
// that is neither Linear nor Embedding.
absl::StatusOr<TargetModules> FindTargetModules(const PeftConfig& peft,
                                                const ModelConfig& model);

// A module of the base model, as Hugging Face names it.
struct ModuleName {
  enum class Kind { kOther, kLinear, kEmbedding, kLmHead };
  std::string name;
  Kind kind = Kind::kOther;
  LinearId id;  // all but kOther
};

// All modules of a model of that configuration, parents first.
std::vector<ModuleName> ModuleNames(const ModelConfig& model);

// True if modules_to_save replaces the module whole: its name, or that of one
// that it is part of, ends with an entry (as text, without a dot before it).
bool IsSavedModule(const PeftConfig& peft, absl::string_view name);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_TARGET_MODULES_H_
