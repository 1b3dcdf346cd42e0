// Pages of a list (AIP-158): the token of the next page is the key of the last
// entry of this one, so that entries that come and go in between neither repeat
// nor hide others.
//
// Pure.

#ifndef LORIKEET_SERVER_GRPC_PAGE_H_
#define LORIKEET_SERVER_GRPC_PAGE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"
#include "server/frontend/error.h"

namespace lorikeet {

inline constexpr int32_t kDefaultPageSize = 100;
inline constexpr int32_t kMaxPageSize = 1000;

// Returns how many entries a page has. Errors: INVALID_ARGUMENT for a negative
// size.
inline absl::StatusOr<int32_t> PageSize(int32_t page_size) {
  if (page_size < 0) {
    return RangeError("page_size", absl::StrCat(page_size),
                      absl::StrCat("[0, ", kMaxPageSize, "]"));
  }
  if (page_size == 0) return kDefaultPageSize;
  return page_size < kMaxPageSize ? page_size : kMaxPageSize;
}

template <typename Entry>
struct Page {
  std::vector<Entry> entries;
  std::string next_page_token;  // empty = the last page
};

// Cuts one page out of `all`; `key` names an entry, in the list's order.
// Errors: INVALID_ARGUMENT for a negative size or a token that is no key of an
// entry before the end.
template <typename Entry>
absl::StatusOr<Page<Entry>> CutPage(
    std::vector<Entry> all, int32_t page_size, const std::string& page_token,
    const std::function<std::string(const Entry&)>& key,
    const std::function<bool(const std::string&, const std::string&)>& before) {
  ASSIGN_OR_RETURN(const int32_t count, PageSize(page_size));
  const size_t size = static_cast<size_t>(count);
  Page<Entry> page;
  for (Entry& entry : all) {
    if (!page_token.empty() && !before(page_token, key(entry))) continue;
    if (page.entries.size() == size) {
      page.next_page_token = key(page.entries.back());
      break;
    }
    page.entries.push_back(std::move(entry));
  }
  return page;
}

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_PAGE_H_
