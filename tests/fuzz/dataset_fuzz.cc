// Any bytes as training data: a status, or sequences inside of their limits
// that a pass may read.

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "train/dataset.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lorikeet;  // NOLINT: a fuzz target is a leaf
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  DatasetOptions options;
  options.vocab_size = 16;
  options.max_tokens = 8;
  options.max_tokens_of = "--token-budget";
  options.learn_all = size % 2 == 1;
  const absl::StatusOr<Dataset> dataset =
      Dataset::Parse(text, "data.jsonl", options);
  if (!dataset.ok()) return 0;
  CHECK_GT(dataset->size(), 0);
  for (const TrainSequence& s : dataset->sequences()) {
    CHECK(s.size() > 0 && s.size() <= options.max_tokens);
    CHECK_EQ(s.tokens.size(), s.is_target.size());
    CHECK(s.num_targets() > 0 && !s.is_target[0]);
    for (const Token t : s.tokens) CHECK(t >= 0 && t < options.vocab_size);
  }
  return 0;
}
