// What an adapter has beyond plain low-rank parts, as its requests must know
// it.
//
// Plain data.

#ifndef LORIKEET_ADAPTERS_ADAPTER_FEATURES_H_
#define LORIKEET_ADAPTERS_ADAPTER_FEATURES_H_

#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/token.h"

namespace lorikeet {

struct AdapterFeatures {
  // Keys of adapter_config.json that are in use: "use_dora", "lora_bias",
  // "bias", "modules_to_save", "trainable_token_indices",
  // "alora_invocation_tokens". With one of them an adapter can be neither part
  // of a composition nor scaled.
  std::vector<std::string> keys;
  // aLoRA: the adapter acts from the last occurrence of these in the prompt.
  // Empty: on everything.
  std::vector<Token> invocation_tokens;

  bool is_plain() const { return keys.empty(); }
  friend bool operator==(const AdapterFeatures&,
                         const AdapterFeatures&) = default;
};

// The position where the last occurrence of `invocation` in `prompt` begins;
// occurrences may overlap. Without one: prompt.size().
size_t FindInvocation(std::span<const Token> prompt,
                      std::span<const Token> invocation);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_FEATURES_H_
