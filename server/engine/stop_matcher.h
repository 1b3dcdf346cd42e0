// A StopMatcher finds stop strings in a stream of text, across its pieces.
//
// Text that may be the beginning of a stop string is held back. The match that
// ends first wins, of these the longest; how the text is cut into pieces makes
// no difference.
//
// Thread-compatible.

#ifndef LORIKEET_SERVER_ENGINE_STOP_MATCHER_H_
#define LORIKEET_SERVER_ENGINE_STOP_MATCHER_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace lorikeet {

class StopMatcher {
 public:
  // With `include_match` the matched string is given out too. Empty strings
  // never match.
  StopMatcher(std::vector<std::string> stop, bool include_match);

  // Adds `piece`; appends to `out` what is certain. Returns true if a stop
  // string is complete: then all text up to it was given out and the rest is
  // dropped. REQUIRES: no match yet.
  bool Append(absl::string_view piece, std::string* out);
  // Appends to `out` what was held back; the text ends here.
  void Finish(std::string* out);

  // The stop string that matched.
  const std::optional<std::string>& matched() const { return matched_; }

 private:
  std::vector<std::string> stop_;
  bool include_match_;
  std::string held_;
  std::optional<std::string> matched_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_STOP_MATCHER_H_
