#include "model/tokenizer/text_pattern.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "model/tokenizer/oniguruma_pattern.h"
#include "model/tokenizer/utf8.h"

namespace lorikeet {
namespace {

// Per match. A tokenizer's pattern needs a few steps for each code point of a
// match, and a run of white space may be one match of a whole prompt.
constexpr uint32_t kMatchLimit = 100'000'000;

}  // namespace

TextPattern TextPattern::FromLiteral(std::string literal) {
  TextPattern result;
  result.literal_ = std::move(literal);
  return result;
}

absl::StatusOr<TextPattern> TextPattern::FromRegex(absl::string_view pattern) {
  ASSIGN_OR_RETURN(const std::string translated,
                   TranslateOnigurumaPattern(pattern));
  ASSIGN_OR_RETURN(Regex regex,
                   Regex::Compile(translated, {.unicode_properties = true,
                                               .match_limit = kMatchLimit}));
  TextPattern result;
  result.regex_ = std::make_shared<const Regex>(std::move(regex));
  return result;
}

absl::StatusOr<TextPattern> TextPattern::FromJson(const Json& object,
                                                  const std::string& what) {
  JsonReader reader(object, what);
  RETURN_IF_ERROR(reader.Require("pattern"));
  const Json* pattern = reader.Get("pattern");
  const Json* literal = pattern->Find("String");
  const Json* regex = pattern->Find("Regex");
  const Json* text = literal != nullptr ? literal : regex;
  if (text == nullptr || !text->is_string()) {
    return reader.Error("pattern",
                        "is no object with a string \"String\" or \"Regex\"");
  }
  if (literal == nullptr) {
    absl::StatusOr<TextPattern> result = FromRegex(text->AsString());
    if (!result.ok()) {
      return Annotate(result.status(),
                      absl::StrCat(what, " field \"pattern.Regex\""));
    }
    return result;
  }
  return FromLiteral(text->AsString());
}

absl::Status TextPattern::ForEachMatch(
    absl::string_view text,
    absl::FunctionRef<void(size_t, size_t)> match) const {
  if (!is_regex()) {
    if (literal_.empty()) return absl::OkStatus();
    for (size_t at = text.find(literal_); at != absl::string_view::npos;
         at = text.find(literal_, at + literal_.size())) {
      match(at, at + literal_.size());
    }
    return absl::OkStatus();
  }
  size_t at = 0;
  std::optional<size_t> last_end;
  while (at <= text.size()) {
    ASSIGN_OR_RETURN(const std::optional<Regex::Span> span,
                     regex_->Search(text, at));
    if (!span.has_value()) break;
    if (span->begin == span->end && last_end == span->end) {
      at += at < text.size() ? Utf8Length(text[at]) : 1;
      continue;
    }
    match(span->begin, span->end);
    at = span->end;
    last_end = span->end;
  }
  return absl::OkStatus();
}

}  // namespace lorikeet
