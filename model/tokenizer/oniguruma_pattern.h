// Rewrites a regular expression of a tokenizer.json for PCRE2.
//
// Those are written for Oniguruma in its Ruby syntax, with Unicode 16. The
// result matches the same texts in PCRE2 10.42 (Unicode 14, UCP on): \s and \S
// become the explicit 25 code points, \p{...} of a general category gets the
// newer code points, \w and \h get Oniguruma's meaning, ^ and $ match at every
// line, (?m) is "dot matches all". Pure.

#ifndef LORIKEET_MODEL_TOKENIZER_ONIGURUMA_PATTERN_H_
#define LORIKEET_MODEL_TOKENIZER_ONIGURUMA_PATTERN_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorikeet {

// Errors: UNIMPLEMENTED naming what Oniguruma has and PCRE2 has not: nested
// classes, && in a class.
absl::StatusOr<std::string> TranslateOnigurumaPattern(
    absl::string_view pattern);

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_ONIGURUMA_PATTERN_H_
