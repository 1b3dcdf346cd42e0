#include "base/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/text.h"

namespace lorikeet {
namespace {

struct MatchDataDeleter {
  void operator()(pcre2_match_data* d) const { pcre2_match_data_free(d); }
};
using MatchData = std::unique_ptr<pcre2_match_data, MatchDataDeleter>;

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }

  // Returns the match data, null without a match.
  absl::StatusOr<MatchData> Match(absl::string_view pattern,
                                  absl::string_view subject, size_t offset,
                                  uint32_t options) const {
    MatchData data(pcre2_match_data_create_from_pattern(code, nullptr));
    CHECK(data != nullptr);
    const int rc = pcre2_match(
        code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(),
        offset, options | PCRE2_NO_UTF_CHECK, data.get(), context);
    if (rc == PCRE2_ERROR_NOMATCH) return MatchData();
    if (rc < 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("regular expression ", Quote(pattern),
                       " needs too many steps (PCRE2 error ", rc, ")"));
    }
    return data;
  }
};

Regex::Regex(std::string pattern, std::unique_ptr<Code> code)
    : pattern_(std::move(pattern)), code_(std::move(code)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

absl::StatusOr<Regex> Regex::Compile(absl::string_view pattern,
                                     const RegexOptions& options) {
  uint32_t flags = PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C;
  if (options.unicode_properties) flags |= PCRE2_UCP;
  int error = 0;
  size_t error_offset = 0;
  auto code = std::make_unique<Code>();
  code->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()),
                    pattern.size(), flags, &error, &error_offset, nullptr);
  if (code->code == nullptr) {
    unsigned char message[256] = {};
    pcre2_get_error_message(error, message, sizeof(message));
    return absl::InvalidArgumentError(absl::StrCat(
        "regular expression ", Quote(pattern), " at offset ", error_offset,
        ": ", reinterpret_cast<const char*>(message)));
  }
  // Without JIT (a platform may forbid it) matching is slower, not different.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  code->context = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(code->context, options.match_limit);
  return Regex(std::string(pattern), std::move(code));
}

absl::StatusOr<std::optional<Regex::Span>> Regex::Search(
    absl::string_view subject, size_t offset) const {
  auto data = code_->Match(pattern_, subject, offset, 0);
  if (!data.ok()) return data.status();
  if (*data == nullptr) return std::optional<Span>();
  const PCRE2_SIZE* o = pcre2_get_ovector_pointer(data->get());
  return std::optional<Span>(Span{o[0], o[1]});
}

absl::StatusOr<bool> Regex::FullMatch(absl::string_view subject) const {
  auto data =
      code_->Match(pattern_, subject, 0, PCRE2_ANCHORED | PCRE2_ENDANCHORED);
  if (!data.ok()) return data.status();
  return *data != nullptr;
}

absl::StatusOr<bool> Regex::PrefixMatch(absl::string_view subject) const {
  auto data = code_->Match(pattern_, subject, 0, PCRE2_ANCHORED);
  if (!data.ok()) return data.status();
  return *data != nullptr;
}

absl::StatusOr<std::optional<std::string>> Regex::NamedGroupOfPrefixMatch(
    absl::string_view subject, absl::string_view name) const {
  auto data = code_->Match(pattern_, subject, 0, PCRE2_ANCHORED);
  if (!data.ok()) return data.status();
  if (*data == nullptr) return std::optional<std::string>();
  const int group = pcre2_substring_number_from_name(
      code_->code, reinterpret_cast<PCRE2_SPTR>(std::string(name).c_str()));
  const PCRE2_SIZE* o = pcre2_get_ovector_pointer(data->get());
  if (group < 0 || o[2 * group] == PCRE2_UNSET) {
    return std::optional<std::string>();
  }
  return std::optional<std::string>(std::string(
      subject.substr(o[2 * group], o[2 * group + 1] - o[2 * group])));
}

}  // namespace lorikeet
