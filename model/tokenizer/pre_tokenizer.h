// A PreTokenizer cuts a normalized text into pieces, which the model encodes
// one by one: the component "pre_tokenizer" of a tokenizer.json.
//
// Known are ByteLevel, Digits, Metaspace, Split and Sequence. Each step cuts
// the pieces of the step before; a look-ahead sees the end of its piece. A
// ByteLevel at the end does not rewrite the pieces into the byte alphabet: the
// model then starts from bytes. Thread-safe.

#ifndef LORIKEET_MODEL_TOKENIZER_PRE_TOKENIZER_H_
#define LORIKEET_MODEL_TOKENIZER_PRE_TOKENIZER_H_

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"

namespace lorikeet {

// Part of a text; the bytes belong to the caller or to a PieceList.
struct Piece {
  absl::string_view text;
  bool at_start = false;  // begins where the whole text begins
};

// Pieces in order, and the bytes of those that had to be rewritten.
class PieceList {
 public:
  std::vector<Piece> pieces;

  // Keeps `text` as long as this list lives.
  absl::string_view Keep(std::string text);

 private:
  std::deque<std::string> kept_;
};

// One step; cuts every piece of a list.
class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  // Errors: RESOURCE_EXHAUSTED if a regular expression needs too many steps.
  virtual absl::Status Apply(PieceList* list) const = 0;
};

class PreTokenizer {
 public:
  // Each step may make a text longer; published files have at most five.
  static constexpr size_t kMaxSteps = 32;

  PreTokenizer() = default;  // cuts nothing

  // Errors: INVALID_ARGUMENT naming the field; UNIMPLEMENTED naming the type
  // or the behavior.
  static absl::StatusOr<PreTokenizer> FromJson(const Json& pre_tokenizer);

  // Cuts the pieces in `list`, which are UTF-8; empty ones vanish.
  absl::Status Cut(PieceList* list) const;

  // True if the pieces stand for bytes, to be mapped to the byte alphabet.
  bool byte_level() const { return byte_level_; }

 private:
  absl::Status Add(const Json& pre_tokenizer, const std::string& what);
  absl::Status AddByteLevel(const Json& pre_tokenizer, const std::string& what);

  std::vector<std::shared_ptr<const PreTokenizerStep>> steps_;
  bool byte_level_ = false;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_PRE_TOKENIZER_H_
