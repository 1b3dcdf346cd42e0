#include "model/tokenizer/unicode_classes.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/tokenizer/utf8.h"

namespace lorikeet {
namespace {

constexpr CodePointRange kWhiteSpace[] = {
    {0x9, 0xD},       {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
    {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
    {0x205F, 0x205F}, {0x3000, 0x3000},
};

}  // namespace

std::span<const CodePointRange> WhiteSpaceRanges() { return kWhiteSpace; }

bool InRanges(std::span<const CodePointRange> ranges, char32_t c) {
  const auto it = std::upper_bound(
      ranges.begin(), ranges.end(), c,
      [](char32_t v, const CodePointRange& r) { return v < r.first; });
  return it != ranges.begin() && c <= std::prev(it)->last;
}

size_t LeadingWhiteSpace(absl::string_view text) {
  size_t i = 0;
  while (i < text.size() && InRanges(kWhiteSpace, CodePointAt(text, i))) {
    i += Utf8Length(text[i]);
  }
  return i;
}

size_t TrailingWhiteSpace(absl::string_view text) {
  size_t begin = text.size();
  while (begin > 0) {
    size_t i = begin - 1;
    while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) --i;
    if (!InRanges(kWhiteSpace, CodePointAt(text, i))) break;
    begin = i;
  }
  return text.size() - begin;
}

std::string PatternRanges(std::span<const CodePointRange> ranges) {
  std::string out;
  for (const CodePointRange& r : ranges) {
    absl::StrAppendFormat(&out, "\\x{%x}", static_cast<uint32_t>(r.first));
    if (r.last != r.first) {
      absl::StrAppendFormat(&out, "-\\x{%x}", static_cast<uint32_t>(r.last));
    }
  }
  return out;
}

std::string NewerPatternRanges(absl::string_view prefix) {
  std::string out;
  for (const NewerCategory& newer : NewerCategories()) {
    if (absl::StartsWith(newer.category, prefix)) {
      absl::StrAppend(&out, PatternRanges(newer.ranges));
    }
  }
  return out;
}

}  // namespace lorikeet
