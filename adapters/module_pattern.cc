#include "adapters/module_pattern.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

// A name has some 40 characters; honest patterns need a few hundred steps.
constexpr uint32_t kMatchLimit = 50'000;
// Alternations of every module of a large model still fit.
constexpr size_t kMaxPatternBytes = 64 << 10;
// Tables with one literal key per module are common (several per layer), those
// with many real patterns are not.
constexpr size_t kMaxTableEntries = 20'000;
constexpr size_t kMaxTableRegexes = 256;

absl::Status PatternError(absl::string_view field, absl::string_view pattern,
                          absl::string_view rest) {
  return absl::InvalidArgumentError(absl::StrCat("adapter_config.json field ",
                                                 Quote(field), ": pattern ",
                                                 Quote(pattern), " ", rest));
}

// Checks what stands behind "(" at `rest`: empty if Python knows it.
absl::string_view GroupError(absl::string_view rest, bool flags_allowed) {
  if (absl::StartsWith(rest, "*")) return "has a verb";
  if (!absl::ConsumePrefix(&rest, "?")) return "";
  for (const absl::string_view known :
       {":", "=", "!", "<=", "<!", "P<", "P=", "#", "(", ">"}) {
    if (absl::StartsWith(rest, known)) return "";
  }
  // Flags: "(?i)" for all of the pattern, "(?i:" for a group.
  const size_t end = rest.find_first_not_of("aiLmsux-");
  if (end == 0 || end == absl::string_view::npos) return "has an unknown group";
  if (rest[end] == ':') return "";
  if (rest[end] != ')') return "has an unknown group";
  return flags_allowed ? "" : "has flags that are not at the start";
}

// Returns why Python's re would not read `pattern`, or "".
absl::string_view PythonError(absl::string_view pattern, bool whole) {
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\') {
      if (++i == pattern.size()) return "ends in a backslash";
      const char e = pattern[i];
      if (absl::ascii_isalpha(static_cast<unsigned char>(e)) &&
          absl::string_view("AbBdDsSwWZafnrtvxuUN").find(e) ==
              absl::string_view::npos) {
        return "has an escape that Python does not know";
      }
    } else if (in_class) {
      in_class = c != ']';
    } else if (c == '[') {
      in_class = true;
      // "]" as the first character is itself.
      if (absl::StartsWith(pattern.substr(i + 1), "^]"))
        i += 2;
      else if (absl::StartsWith(pattern.substr(i + 1), "]"))
        i += 1;
    } else if (c == '(') {
      const absl::string_view error =
          GroupError(pattern.substr(i + 1), whole && i == 0);
      if (!error.empty()) return error;
    } else if (c == '{' && absl::StartsWith(pattern.substr(i + 1), ",")) {
      // Python: from 0 on; PCRE2: the characters themselves.
      return "has a repetition without a lower bound";
    }
  }
  return "";
}

bool IsLiteral(absl::string_view key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' ||
           c == '.';
  });
}

// The match of a literal key; its dots stand for any character.
bool LiteralMatches(absl::string_view key, absl::string_view name) {
  if (name.size() < key.size()) return false;
  const size_t begin = name.size() - key.size();
  if (begin > 0 && name[begin - 1] != '.') return false;
  for (size_t i = 0; i < key.size(); ++i) {
    if (key[i] != '.' && key[i] != name[begin + i]) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<Regex> CompilePythonRegex(absl::string_view field,
                                         absl::string_view pattern, bool whole,
                                         absl::string_view before,
                                         absl::string_view after) {
  if (pattern.size() > kMaxPatternBytes) {
    return PatternError(
        field, pattern,
        absl::StrCat("has ", pattern.size(), " bytes, the limit is ",
                     kMaxPatternBytes));
  }
  const absl::string_view error = PythonError(pattern, whole);
  if (!error.empty()) return PatternError(field, pattern, error);
  RegexOptions options;
  options.match_limit = kMatchLimit;
  absl::StatusOr<Regex> regex =
      Regex::Compile(absl::StrCat(before, pattern, after), options);
  if (!regex.ok()) {
    return PatternError(
        field, pattern,
        absl::StrCat("is no regular expression: ", regex.status().message()));
  }
  return regex;
}

absl::StatusOr<PatternTable> PatternTable::Compile(absl::string_view field,
                                                   const Entries& entries) {
  PatternTable table;
  table.field_ = std::string(field);
  size_t regexes = 0;
  for (const auto& [key, value] : entries) {
    Row row{key, value, std::nullopt};
    if (!IsLiteral(key)) {
      ASSIGN_OR_RETURN(
          row.regex,
          CompilePythonRegex(field, key, /*whole=*/false, R"((.*\.)?()", ")$"));
      ++regexes;
    }
    table.rows_.push_back(std::move(row));
  }
  if (entries.size() > kMaxTableEntries || regexes > kMaxTableRegexes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "adapter_config.json field ", Quote(field), " has ", entries.size(),
        " keys, ", regexes, " of them patterns; the limits are ",
        kMaxTableEntries, " and ", kMaxTableRegexes));
  }
  return table;
}

absl::StatusOr<std::optional<double>> PatternTable::Find(
    absl::string_view name) const {
  for (const Row& row : rows_) {
    bool matches = false;
    if (row.regex.has_value()) {
      absl::StatusOr<bool> result = row.regex->PrefixMatch(name);
      if (!result.ok()) {
        return PatternError(field_, row.key, "needs too many steps");
      }
      matches = *result;
    } else {
      matches = LiteralMatches(row.key, name);
    }
    if (matches) return std::optional<double>(row.value);
  }
  return std::optional<double>();
}

}  // namespace lorikeet
