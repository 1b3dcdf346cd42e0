// A Dataset is the examples of a JSONL file as tokens. A line is either
//   {"prompt": TEXT, "completion": TEXT}      the end token is added, the
//                                             completion and it are learned
//   {"token_ids": [..], "loss_mask": [..]}    1 = this token is learned, given
//                                             those before it
//
// Prompt and completion are tokenized apart, as they are when a model is asked.
// Immutable.

#ifndef LORIKEET_TRAIN_DATASET_H_
#define LORIKEET_TRAIN_DATASET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/digest.h"
#include "base/file_system.h"
#include "model/tokenizer/tokenizer.h"
#include "train/train_sequence.h"

namespace lorikeet {

struct DatasetOptions {
  const Tokenizer* tokenizer = nullptr;  // null: token ids only
  Token end_token = -1;                  // added to completions; -1: none
  int64_t vocab_size = 0;
  int64_t max_tokens = 0;     // of a sequence: the context, the token budget
  std::string max_tokens_of;  // what sets it, for messages
  bool learn_all = false;     // also prompts; every token but the first
};

class Dataset {
 public:
  // Reads `path`. Empty lines are left out.
  //
  // Errors: NOT_FOUND; INVALID_ARGUMENT naming file and line if it is no JSON,
  // has a wrong field, nothing to learn, a token outside of the vocabulary or
  // too many tokens; also if there is no example at all.
  static absl::StatusOr<Dataset> Read(FileSystem& fs, const std::string& path,
                                      const DatasetOptions& options);
  // The same of a text; `name` is what messages call it.
  static absl::StatusOr<Dataset> Parse(absl::string_view text,
                                       absl::string_view name,
                                       const DatasetOptions& options);

  const std::vector<TrainSequence>& sequences() const { return sequences_; }
  int64_t size() const { return static_cast<int64_t>(sequences_.size()); }
  int64_t num_tokens() const;
  // Of the text.
  const Digest& digest() const { return digest_; }

 private:
  Dataset() = default;

  std::vector<TrainSequence> sequences_;
  Digest digest_;
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_DATASET_H_
