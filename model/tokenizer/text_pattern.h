// A TextPattern is what a tokenizer.json writes as {"String": " "} or
// {"Regex": "\\s+"}: something to look for in a text.
//
// Matches do not overlap and go from left to right; an empty match right behind
// another match is skipped. Thread-safe.

#ifndef LORIKEET_MODEL_TOKENIZER_TEXT_PATTERN_H_
#define LORIKEET_MODEL_TOKENIZER_TEXT_PATTERN_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "base/regex.h"

namespace lorikeet {

class TextPattern {
 public:
  // Reads member "pattern" of `object`; `what` names the object in messages.
  //
  // Errors: INVALID_ARGUMENT naming the field; UNIMPLEMENTED for a regular
  // expression that PCRE2 cannot follow.
  static absl::StatusOr<TextPattern> FromJson(const Json& object,
                                              const std::string& what);
  static TextPattern FromLiteral(std::string literal);
  // `pattern` is in Oniguruma's syntax.
  static absl::StatusOr<TextPattern> FromRegex(absl::string_view pattern);

  // Calls `match` with begin and end (bytes) of each match.
  //
  // REQUIRES: `text` is UTF-8.
  // Errors: RESOURCE_EXHAUSTED if a regular expression needs too many steps.
  absl::Status ForEachMatch(
      absl::string_view text,
      absl::FunctionRef<void(size_t, size_t)> match) const;

  // The literal text; empty for a regular expression.
  const std::string& literal() const { return literal_; }
  bool is_regex() const { return regex_ != nullptr; }

 private:
  TextPattern() = default;

  std::string literal_;
  std::shared_ptr<const Regex> regex_;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_TEXT_PATTERN_H_
