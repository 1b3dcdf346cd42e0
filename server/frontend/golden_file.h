// A golden.jsonl: prompts with the answers that an adapter has to give, one
// JSON object a line. docs/formats/golden.md has the fields.
//
// Pure.

#ifndef LORIKEET_SERVER_FRONTEND_GOLDEN_FILE_H_
#define LORIKEET_SERVER_FRONTEND_GOLDEN_FILE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorikeet {

struct GoldenCase {
  int line = 0;  // from 1
  // Exactly one of the two.
  std::optional<std::string> prompt;
  std::vector<uint32_t> token_ids;
  // At least one of the two.
  std::vector<uint32_t> tokens;  // the greedy continuation
  std::vector<float> logits;     // [vocab], of the prompt's last position
  // Largest difference of a logit, as a share of the RMS of `logits`.
  double tolerance = 0;
};

inline constexpr size_t kMaxGoldenCases = 256;
inline constexpr double kDefaultGoldenTolerance = 0.02;

// Empty lines are skipped. Errors: INVALID_ARGUMENT (reason GOLDEN_INVALID)
// naming line, field and limit.
absl::StatusOr<std::vector<GoldenCase>> ParseGoldenFile(absl::string_view text);

// Returns OK, or INVALID_ARGUMENT (reason GOLDEN_MISMATCH) naming line, what
// was expected and what was got. The vectors may differ in length.
absl::Status CompareTokens(const GoldenCase& golden,
                           const std::vector<uint32_t>& got);
absl::Status CompareLogits(const GoldenCase& golden,
                           const std::vector<float>& got);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_GOLDEN_FILE_H_
