// A Normalizer changes a text before it is cut into pieces: the component
// "normalizer" of a tokenizer.json.
//
// Known are NFC, Prepend, Replace and Sequence. NFC is that of Unicode 9, as
// in the library we follow: newer marks stay where they are. What a file can
// make of a text is limited to kMaxGrowth times its bytes. Thread-safe.

#ifndef LORIKEET_MODEL_TOKENIZER_NORMALIZER_H_
#define LORIKEET_MODEL_TOKENIZER_NORMALIZER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "model/tokenizer/text_pattern.h"

namespace lorikeet {

class Normalizer {
 public:
  static constexpr size_t kMaxGrowth = 4096;

  Normalizer() = default;  // changes nothing

  // Errors: INVALID_ARGUMENT naming the field; UNIMPLEMENTED naming the type.
  static absl::StatusOr<Normalizer> FromJson(const Json& normalizer);

  // REQUIRES: `text` is UTF-8.
  // Errors: RESOURCE_EXHAUSTED if a regular expression needs too many steps.
  absl::StatusOr<std::string> Normalize(absl::string_view text) const;

  // True if Normalize returns every text as it is.
  bool is_identity() const { return steps_.empty(); }

 private:
  enum class Kind { kNfc, kPrepend, kReplace };
  struct Step {
    Kind kind = Kind::kNfc;
    std::string content;               // Prepend, Replace
    std::vector<TextPattern> pattern;  // Replace: one
  };

  absl::Status Add(const Json& normalizer, const std::string& what);
  absl::Status AddReplace(const Json& normalizer, const std::string& what);

  std::vector<Step> steps_;
  size_t growth_ = 1;
};

// Returns the Normalization Form C of well-formed `text` by Unicode 9.
std::string ToNfc(absl::string_view text);

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_NORMALIZER_H_
