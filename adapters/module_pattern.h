// Regular expressions over module names, with Python's meaning.
//
// PEFT's configurations hold patterns that Python's `re` reads. PCRE2 agrees
// with it on all that Python accepts and we let through; what PCRE2 has beyond
// Python (verbs, recursion, \K) is refused. A PatternTable is rank_pattern or
// alpha_pattern: the first key that matches gives the value, in the order of
// the file.
//
// Thread-compatible.

#ifndef LORIKEET_ADAPTERS_MODULE_PATTERN_H_
#define LORIKEET_ADAPTERS_MODULE_PATTERN_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/regex.h"

namespace lorikeet {

// Compiles `pattern` as Python's re would read it. `field` is the key of the
// configuration, for messages. `whole` = the pattern is used as it stands, so
// that inline flags may begin it; else it is part of a longer one.
//
// Errors: INVALID_ARGUMENT naming field and pattern.
absl::StatusOr<Regex> CompilePythonRegex(absl::string_view field,
                                         absl::string_view pattern, bool whole,
                                         absl::string_view before = "",
                                         absl::string_view after = "");

class PatternTable {
 public:
  // (key, value) in the order of the file.
  using Entries = std::vector<std::pair<std::string, double>>;

  // Errors: INVALID_ARGUMENT naming `field` and the key that is no regular
  // expression, or the limit on their number.
  static absl::StatusOr<PatternTable> Compile(absl::string_view field,
                                              const Entries& entries);

  // Returns the value of the first key with
  // re.match("(.*\.)?(" + key + ")$", name), or nullopt.
  //
  // Errors: INVALID_ARGUMENT if a key needs too many steps.
  absl::StatusOr<std::optional<double>> Find(absl::string_view name) const;

 private:
  struct Row {
    std::string key;
    double value;
    // Null: the key has letters, digits and dots only and is compared so.
    std::optional<Regex> regex;
  };
  std::string field_;
  std::vector<Row> rows_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_MODULE_PATTERN_H_
