#include "model/tokenizer/normalizer.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include <utf8proc.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "base/text.h"
#include "model/tokenizer/unicode_classes.h"
#include "model/tokenizer/utf8.h"

namespace lorikeet {
namespace {

constexpr auto kNfcOptions =
    static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

// Puts marks behind a starter into canonical order. Done here, as utf8proc's
// own sort takes quadratic time for a long run of marks.
void SortMarks(std::vector<utf8proc_int32_t>* points) {
  const auto mark_class = [](utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
  };
  for (auto begin = points->begin(); begin != points->end();) {
    auto end = begin;
    while (end != points->end() && mark_class(*end) != 0) ++end;
    std::stable_sort(begin, end, [&](utf8proc_int32_t a, utf8proc_int32_t b) {
      return mark_class(a) < mark_class(b);
    });
    begin = end == points->end() ? end : end + 1;
  }
}

// REQUIRES: `text` has no code point that is newer than Unicode 9.
void AppendNfc(absl::string_view text, std::string* out) {
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  for (size_t i = 0; i < text.size(); i += Utf8Length(text[i])) {
    // The longest canonical decomposition has four code points.
    utf8proc_int32_t parts[8];
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(CodePointAt(text, i)), parts,
        std::size(parts), kNfcOptions, &boundary);
    CHECK(count >= 0 && count <= static_cast<int>(std::size(parts)));
    points.insert(points.end(), parts, parts + count);
  }
  SortMarks(&points);
  const utf8proc_ssize_t count = utf8proc_normalize_utf32(
      points.data(), static_cast<utf8proc_ssize_t>(points.size()), kNfcOptions);
  CHECK(count >= 0);
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    AppendUtf8(static_cast<char32_t>(points[static_cast<size_t>(i)]), out);
  }
}

// Returns true if the texts on both sides of `c` can be normalized on their
// own, and must be. U+11A7 composes with nothing, but utf8proc 2.8 takes it for
// a trailing Hangul letter and loses it.
bool IsNfcBarrier(char32_t c) {
  return c == 0x11A7 || InRanges(NfcUnknownRanges(), c);
}

// No code point below U+0300 has a combining class, or composes with one
// below.
bool IsNfcRelevant(absl::string_view text) {
  // U+0300 is CC 80.
  for (const char c : text) {
    if (static_cast<unsigned char>(c) >= 0xCC) return true;
  }
  return false;
}

}  // namespace

// A code point that Unicode 9 does not know is a starter that composes with
// nothing, so the texts on both sides of it can be normalized on their own.
std::string ToNfc(absl::string_view text) {
  if (!IsNfcRelevant(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8Length(text[i]);
    if (length > 1 && IsNfcBarrier(CodePointAt(text, i))) {
      AppendNfc(text.substr(begin, i - begin), &out);
      out.append(text.data() + i, length);
      begin = i + length;
    }
    i += length;
  }
  AppendNfc(text.substr(begin), &out);
  return out;
}

absl::StatusOr<Normalizer> Normalizer::FromJson(const Json& normalizer) {
  Normalizer result;
  if (!normalizer.is_null()) {
    RETURN_IF_ERROR(result.Add(normalizer, "normalizer"));
  }
  return result;
}

absl::Status Normalizer::Add(const Json& normalizer, const std::string& what) {
  if (!normalizer.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, " is ", normalizer.TypeName(), ", expected an object"));
  }
  JsonReader reader(normalizer, what);
  RETURN_IF_ERROR(reader.Require("type"));
  ASSIGN_OR_RETURN(const std::string type, reader.String("type", ""));
  if (type == "Sequence") {
    const Json* parts = reader.Get("normalizers");
    if (parts == nullptr || !parts->is_array()) {
      return reader.Error("normalizers", "is no list");
    }
    for (size_t i = 0; i < parts->items().size(); ++i) {
      RETURN_IF_ERROR(
          Add(parts->items()[i], absl::StrCat(what, ".normalizers[", i, "]")));
    }
    return absl::OkStatus();
  }
  if (type == "NFC") {
    steps_.push_back({.kind = Kind::kNfc});
    return absl::OkStatus();
  }
  if (type == "Prepend") {
    RETURN_IF_ERROR(reader.Require("prepend"));
    ASSIGN_OR_RETURN(std::string prefix, reader.String("prepend", ""));
    steps_.push_back({.kind = Kind::kPrepend, .content = std::move(prefix)});
    return absl::OkStatus();
  }
  if (type == "Replace") return AddReplace(normalizer, what);
  return absl::UnimplementedError(
      absl::StrCat(what, " has the unsupported type ", Quote(type),
                   " (supported: NFC, Prepend, Replace, Sequence)"));
}

absl::Status Normalizer::AddReplace(const Json& normalizer,
                                    const std::string& what) {
  JsonReader reader(normalizer, what);
  ASSIGN_OR_RETURN(TextPattern pattern,
                   TextPattern::FromJson(normalizer, what));
  RETURN_IF_ERROR(reader.Require("content"));
  ASSIGN_OR_RETURN(std::string content, reader.String("content", ""));
  const size_t matched = std::max<size_t>(1, pattern.literal().size());
  // An empty match can stand beside every byte.
  growth_ *= content.size() / matched + (pattern.is_regex() ? 2 : 1);
  if (content.size() > kMaxGrowth || growth_ > kMaxGrowth) {
    return reader.Error("content", absl::StrCat("can make a text more than ",
                                                kMaxGrowth, " times as long"));
  }
  Step step = {.kind = Kind::kReplace, .content = std::move(content)};
  step.pattern.push_back(std::move(pattern));
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::StatusOr<std::string> Normalizer::Normalize(
    absl::string_view text) const {
  std::string result(text);
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kNfc:
        result = ToNfc(result);
        break;
      case Kind::kPrepend:
        if (!result.empty()) result.insert(0, step.content);
        break;
      case Kind::kReplace: {
        std::string replaced;
        replaced.reserve(result.size() * 2);
        size_t begin = 0;
        RETURN_IF_ERROR(
            step.pattern[0].ForEachMatch(result, [&](size_t from, size_t to) {
              replaced.append(result, begin, from - begin);
              replaced += step.content;
              begin = to;
            }));
        replaced.append(result, begin);
        result = std::move(replaced);
        break;
      }
    }
  }
  return result;
}

}  // namespace lorikeet
