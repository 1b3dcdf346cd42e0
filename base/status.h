// Macros that pass an absl::Status on, and helpers to build one.
//
//   RETURN_IF_ERROR(file.Sync());
//   ASSIGN_OR_RETURN(const Config config, ReadConfig(dir));
//
// Pure.

#ifndef LORIKEET_BASE_STATUS_H_
#define LORIKEET_BASE_STATUS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#define LORIKEET_CONCAT_INNER(a, b) a##b
#define LORIKEET_CONCAT(a, b) LORIKEET_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expr) \
  RETURN_IF_ERROR_IMPL(LORIKEET_CONCAT(_status_, __LINE__), expr)

#define RETURN_IF_ERROR_IMPL(tmp, expr)         \
  do {                                          \
    if (absl::Status tmp = (expr); !tmp.ok()) { \
      return tmp;                               \
    }                                           \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL(LORIKEET_CONCAT(_status_or_, __LINE__), lhs, expr)

#define ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr)    \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return std::move(tmp).status(); \
  lhs = *std::move(tmp)

namespace lorikeet {

// Returns `status` with "`context`: " in front of its message; OK stays OK.
// Payloads are kept.
inline absl::Status Annotate(const absl::Status& status,
                             absl::string_view context) {
  if (status.ok()) return status;
  absl::Status result(status.code(),
                      absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    result.SetPayload(url, payload);
  });
  return result;
}

}  // namespace lorikeet

#endif  // LORIKEET_BASE_STATUS_H_
