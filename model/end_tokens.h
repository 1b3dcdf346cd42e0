// Reads "eos_token_id", which is a number or a list of numbers.
//
// Pure.

#ifndef LORIKEET_MODEL_END_TOKENS_H_
#define LORIKEET_MODEL_END_TOKENS_H_

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "base/json.h"
#include "base/token.h"

namespace lorikeet {

// Returns nullopt if the key is missing or null.
// Errors: INVALID_ARGUMENT naming the key if it is neither.
absl::StatusOr<std::optional<std::vector<Token>>> ReadEndTokens(
    JsonReader& reader);

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_END_TOKENS_H_
