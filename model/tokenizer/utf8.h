// UTF-8 as the tokenizer needs it: code points of well-formed text, and lossy
// decoding of bytes that arrive in parts.
//
// Lossy decoding replaces each maximal ill-formed part by one U+FFFD (Unicode
// chapter 3, "substitution of maximal subparts"). Pure.

#ifndef LORIKEET_MODEL_TOKENIZER_UTF8_H_
#define LORIKEET_MODEL_TOKENIZER_UTF8_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace lorikeet {

// U+FFFD in UTF-8.
inline constexpr absl::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// Returns the length of the code point that begins with `lead`.
// REQUIRES: `lead` is the first byte of a well-formed code point.
inline size_t Utf8Length(char lead) {
  const auto b = static_cast<unsigned char>(lead);
  return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}

// Returns the code point at `offset` of well-formed `text`.
char32_t CodePointAt(absl::string_view text, size_t offset);

// Appends the code point to `out`.
void AppendUtf8(char32_t code_point, std::string* out);

// Returns the number of code points in well-formed `text`.
size_t CountCodePoints(absl::string_view text);

// What the bytes at the start of a text are.
struct Utf8Prefix {
  size_t length = 0;         // of the code point, or of the ill-formed part
  bool well_formed = false;  // a whole code point
  bool unfinished = false;   // the text ends, more bytes could complete it
};

// REQUIRES: `bytes` is not empty.
Utf8Prefix ClassifyUtf8Prefix(absl::string_view bytes);

// Appends the text of `bytes` to `out` and returns how many bytes that took.
// All are taken, except an unfinished code point at the end while `more` may
// follow.
size_t DecodeLossy(absl::string_view bytes, bool more, std::string* out);

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_UTF8_H_
