// LayerRules are the lines of layers.txt, and what they say of a source file.
//
// Pure.

#ifndef LORIKEET_TESTS_LAYERS_LAYER_RULES_H_
#define LORIKEET_TESTS_LAYERS_LAYER_RULES_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorikeet::testing {

// One #include of a file.
struct Include {
  std::string header;  // without quotes or brackets
  int line = 0;        // from 1
};

// Returns the #includes of C++ source text; not those in comments.
std::vector<Include> FindIncludes(absl::string_view text);

class LayerRules {
 public:
  // Parses layers.txt, whose head comment has the grammar.
  // Errors: INVALID_ARGUMENT naming the line.
  static absl::StatusOr<LayerRules> Parse(absl::string_view text);

  // Returns a message "path:line: ..." for each include of the file at `path`
  // (relative to the root of the tree) that the rules forbid.
  std::vector<std::string> Check(absl::string_view path,
                                 absl::string_view text) const;

 private:
  // "name: word word", and where it stands.
  struct Rule {
    std::string name;
    std::vector<std::string> words;
    int line = 0;
    std::string ToString() const;
  };

  const Rule* FindLayer(absl::string_view path, bool folders_only) const;
  // Null if no fence forbids `header` in `path`, else that fence.
  const Rule* FindFence(absl::string_view path, absl::string_view header) const;
  bool IsOurs(absl::string_view header) const;
  bool MayInclude(absl::string_view path, const Rule& layer,
                  absl::string_view header) const;
  std::optional<std::string> Verdict(absl::string_view path,
                                     absl::string_view header) const;

  std::vector<Rule> layers_;
  std::vector<Rule> fences_;
};

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_LAYERS_LAYER_RULES_H_
