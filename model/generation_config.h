// A GenerationConfig is what generation_config.json proposes: end tokens and
// sampling defaults. Absent fields are nullopt. Plain data.

#ifndef LORIKEET_MODEL_GENERATION_CONFIG_H_
#define LORIKEET_MODEL_GENERATION_CONFIG_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/token.h"

namespace lorikeet {

struct GenerationConfig {
  std::optional<std::vector<Token>> eos_tokens;  // a number or a list
  std::optional<bool> do_sample;  // false = greedy whatever else is said
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;

  // Errors: INVALID_ARGUMENT "generation_config.json field ...".
  static absl::StatusOr<GenerationConfig> Parse(absl::string_view text);
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_GENERATION_CONFIG_H_
