// A Regex is a compiled PCRE2 pattern (UTF-8, JIT), the one user of PCRE2.
//
// Matching has a step limit, so a hostile pattern costs milliseconds and not
// hours. Thread-safe after Compile.

#ifndef LORIKEET_BASE_REGEX_H_
#define LORIKEET_BASE_REGEX_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorikeet {

struct RegexOptions {
  // True = \w, \d, \s, \b and (?i) follow Unicode.
  bool unicode_properties = false;
  // Steps of one Match call before it gives up.
  uint32_t match_limit = 1'000'000;
};

class Regex {
 public:
  // One match: offsets in bytes of the whole match.
  struct Span {
    size_t begin = 0;
    size_t end = 0;
  };

  // Errors: INVALID_ARGUMENT with PCRE2's message and offset.
  static absl::StatusOr<Regex> Compile(absl::string_view pattern,
                                       const RegexOptions& options = {});
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Returns the leftmost match at or after `offset` (bytes, on a code point),
  // or nullopt. REQUIRES: `subject` is valid UTF-8.
  // Errors: RESOURCE_EXHAUSTED beyond the match limit.
  absl::StatusOr<std::optional<Span>> Search(absl::string_view subject,
                                             size_t offset = 0) const;
  // Python's re.fullmatch: true if the whole subject matches.
  absl::StatusOr<bool> FullMatch(absl::string_view subject) const;
  // Python's re.match: true if a match starts at the start of the subject.
  absl::StatusOr<bool> PrefixMatch(absl::string_view subject) const;
  // The text of the group called `name` of a match at the start of the
  // subject; nullopt without a match or if the group took no part.
  absl::StatusOr<std::optional<std::string>> NamedGroupOfPrefixMatch(
      absl::string_view subject, absl::string_view name) const;

  const std::string& pattern() const { return pattern_; }

 private:
  struct Code;
  Regex(std::string pattern, std::unique_ptr<Code> code);

  std::string pattern_;
  std::unique_ptr<Code> code_;
};

}  // namespace lorikeet

#endif  // LORIKEET_BASE_REGEX_H_
