#include "server/engine/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace lorikeet {
namespace {

// Returns the length of the longest end of `text` that begins some string.
size_t HeldLength(absl::string_view text,
                  const std::vector<std::string>& stop) {
  size_t longest = 0;
  for (const std::string& s : stop) {
    for (size_t n = std::min(s.size() - 1, text.size()); n > longest; --n) {
      if (text.substr(text.size() - n) == absl::string_view(s).substr(0, n)) {
        longest = n;
      }
    }
  }
  return longest;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stop, bool include_match)
    : stop_(std::move(stop)), include_match_(include_match) {
  std::erase(stop_, std::string());
}

bool StopMatcher::Append(absl::string_view piece, std::string* out) {
  CHECK(!matched_.has_value());
  held_.append(piece.data(), piece.size());
  const std::string* match = nullptr;
  size_t match_end = std::string::npos;
  for (const std::string& s : stop_) {
    const size_t begin = held_.find(s);
    if (begin == std::string::npos) continue;
    const size_t end = begin + s.size();
    if (match == nullptr || end < match_end ||
        (end == match_end && s.size() > match->size())) {
      match = &s;
      match_end = end;
    }
  }
  if (match != nullptr) {
    matched_ = *match;
    out->append(held_, 0,
                include_match_ ? match_end : match_end - match->size());
    held_.clear();
    return true;
  }
  const size_t certain = held_.size() - HeldLength(held_, stop_);
  out->append(held_, 0, certain);
  held_.erase(0, certain);
  return false;
}

void StopMatcher::Finish(std::string* out) {
  out->append(held_);
  held_.clear();
}

}  // namespace lorikeet
