// Where tests find shared data, and golden answers read into plain structs.
//
// Data that is not there is no failure: tests skip, saying what is missing.
//
//   const std::string dir = SharedDir();
//   if (dir.empty()) GTEST_SKIP() << "skipped: no shared golden data";
//
// Plain data.

#ifndef LORIKEET_TESTS_TESTING_GOLDEN_H_
#define LORIKEET_TESTS_TESTING_GOLDEN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/token.h"
#include "model/safetensors.h"

namespace lorikeet::testing {

// Returns the folder of golden data: $LORIKEET_SHARED, else
// $LORIKEET_SOURCE_DIR/../shared; "" if it is not there.
std::string SharedDir();
// Returns `SharedDir()`/golden/tiny, or "".
std::string TinyDir();
// Returns $LORIKEET_MODELS, else $HOME/.cache/lorikeet/models; "" if it is not
// there.
std::string ModelsDir();
// Returns the source tree: $LORIKEET_SOURCE_DIR, else ".".
std::string SourceDir();
// Returns a fresh empty directory of this process below gtest's temporary one;
// it is removed when the process exits.
std::string FreshTempDir(absl::string_view name);

// One prompt of a golden file (golden/tiny/README.md, section 1).
struct GoldenPrompt {
  std::vector<Token> ids;
  int64_t first_pos = 0;      // position of the first row of logits
  int64_t logit_rows = 0;     // ids.size() - first_pos
  std::vector<float> logits;  // [logit_rows, vocab]
  std::vector<Token> greedy_ids;
  std::vector<float> greedy_margins;
  int64_t safe_steps = 0;            // compare no further than this
  std::vector<float> decode_logits;  // [vocab], of the last greedy step
  std::vector<float> merged_logits;  // like logits; empty if not in the file

  // Of some base files; empty if not in the file.
  int64_t top_count = 0;                   // alternatives per step, 8
  std::vector<Token> top_ids;              // [greedy steps, top_count]
  std::vector<float> top_logprobs;         // [greedy steps, top_count]
  std::vector<float> prompt_logprobs;      // [ids.size() - 1]
  std::vector<Token> prompt_top_ids;       // [ids.size() - 1, top_count]
  std::vector<float> prompt_top_logprobs;  // [ids.size() - 1, top_count]

  const float* logits_row(int64_t row, int64_t vocab) const {
    return logits.data() + row * vocab;
  }
};

struct Golden {
  double logits_rms = 1;  // the unit of every tolerance
  int64_t vocab = 0;
  std::vector<GoldenPrompt> prompts;
};

// Errors: NOT_FOUND; INVALID_ARGUMENT if it is no golden file.
absl::StatusOr<Golden> ReadGolden(const std::string& path);

// Values of one tensor. Errors: NOT_FOUND, or INVALID_ARGUMENT if its dtype is
// not F32 or I32 respectively.
absl::StatusOr<std::vector<float>> ReadF32(const SafetensorsFile& file,
                                           absl::string_view name);
absl::StatusOr<std::vector<int32_t>> ReadI32(const SafetensorsFile& file,
                                             absl::string_view name);

// How far logits are from golden ones, as fractions of `logits_rms`.
struct LogitError {
  double max = 0;
  double sum_of_squares = 0;
  int64_t count = 0;
  double rms() const;
  // Adds the comparison of `n` values.
  void Add(const float* actual, const float* expected, int64_t n,
           double logits_rms);
};

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_TESTING_GOLDEN_H_
