// A PeftConfig is what adapter_config.json says of a LoRA adapter, checked.
//
// Every key that PEFT knows has a verdict here: it is read, it is neutral at
// inference and ignored (sometimes with a warning), or it is refused by name.
// Unknown keys are refused unless their value says "off". Plain data.

#ifndef LORIKEET_ADAPTERS_PEFT_CONFIG_H_
#define LORIKEET_ADAPTERS_PEFT_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/module_pattern.h"

namespace lorikeet {

// A choice of modules: a regular expression for the whole name, or a list of
// names and ends of names.
struct ModuleChoice {
  std::optional<std::string> regex;
  std::vector<std::string> names;
};

// trainable_token_indices of one module.
struct TrainableTokens {
  std::string module;            // "embed_tokens": the end of a name
  std::vector<int64_t> indices;  // >= 0, at least one, none twice; file order
};

struct PeftConfig {
  enum class Bias { kNone, kLoraOnly, kAll };

  int64_t r = 8;          // >= 1
  double lora_alpha = 8;  // > 0, finite
  bool use_rslora = false;
  std::optional<ModuleChoice> target_modules;   // nullopt: by model type
  std::optional<ModuleChoice> exclude_modules;  // nullopt: nothing
  std::vector<int64_t> layers_to_transform;     // empty: every layer
  std::vector<std::string> layers_pattern;      // empty: any container
  PatternTable::Entries rank_pattern;           // values are integers >= 1
  PatternTable::Entries alpha_pattern;          // values > 0, finite
  bool use_dora = false;
  bool lora_bias = false;  // B has a bias; never with use_dora
  Bias bias = Bias::kNone;
  std::vector<std::string> modules_to_save;  // ends of names, as text
  std::vector<TrainableTokens> trainable_tokens;
  std::vector<int64_t> alora_invocation_tokens;  // >= 0; empty: plain LoRA
  bool ensure_weight_tying = false;
  // Parts of names of tensors that only training needs.
  std::vector<std::string> ignored_tensors;
  std::vector<std::string> warnings;

  // Parses the text of adapter_config.json.
  //
  // Errors: INVALID_ARGUMENT "adapter_config.json field ..." naming key, value
  // and limit; UNIMPLEMENTED naming the key of a feature we do not have.
  static absl::StatusOr<PeftConfig> Parse(absl::string_view text);
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_PEFT_CONFIG_H_
