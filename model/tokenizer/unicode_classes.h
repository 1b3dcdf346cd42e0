// Character classes of the Unicode versions that the reference tokenizers
// carry, where our libraries know another version.
//
// PCRE2 10.42 and utf8proc know Unicode 14 and 15; Hugging Face's library uses
// Unicode 16 in regular expressions, 17 for digits and 9 for NFC. The tables in
// unicode_tables.cc hold the differences; make_unicode_tables.py writes them.
// Ranges are inclusive and ascending. Pure.

#ifndef LORIKEET_MODEL_TOKENIZER_UNICODE_CLASSES_H_
#define LORIKEET_MODEL_TOKENIZER_UNICODE_CLASSES_H_

#include <span>
#include <string>

#include "absl/strings/string_view.h"

namespace lorikeet {

struct CodePointRange {
  char32_t first = 0;
  char32_t last = 0;
};

// Code points of one general category (such as "Lu") newer than Unicode 14.
struct NewerCategory {
  absl::string_view category;
  std::span<const CodePointRange> ranges;
};

std::span<const NewerCategory> NewerCategories();

// Nd, Nl and No of Unicode 17.
std::span<const CodePointRange> DigitRanges();

// Code points that an NFC of Unicode 9 neither reorders nor composes.
std::span<const CodePointRange> NfcUnknownRanges();

// The 25 code points of White_Space; U+180E is not one of them.
std::span<const CodePointRange> WhiteSpaceRanges();

bool InRanges(std::span<const CodePointRange> ranges, char32_t c);

// White space at the ends of well-formed `text`, in bytes.
size_t LeadingWhiteSpace(absl::string_view text);
size_t TrailingWhiteSpace(absl::string_view text);

// Returns `ranges` as they stand inside a PCRE2 class: "\x{9}-\x{d}\x{20}".
std::string PatternRanges(std::span<const CodePointRange> ranges);

// Returns the inside of a PCRE2 class with what is newer than Unicode 14 in
// the categories whose name begins with `prefix` ("L", "Nd"); may be empty.
std::string NewerPatternRanges(absl::string_view prefix);

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_UNICODE_CLASSES_H_
