// A hint on an error: when trying again may help. Rides along as a payload of
// the status, like the reason (base/reason.h).
//
// Pure.

#ifndef LORIKEET_SERVER_ENGINE_RETRY_AFTER_H_
#define LORIKEET_SERVER_ENGINE_RETRY_AFTER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lorikeet {

inline constexpr absl::string_view kRetryAfterUrl = "lorikeet/retry-after-ms";

inline absl::Status WithRetryAfter(absl::Status status, absl::Duration after) {
  status.SetPayload(kRetryAfterUrl,
                    absl::Cord(absl::StrCat(absl::ToInt64Milliseconds(after))));
  return status;
}

// Returns the hint, or nullopt if there is none.
inline std::optional<absl::Duration> RetryAfterOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kRetryAfterUrl);
  int64_t ms = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &ms)) {
    return std::nullopt;
  }
  return absl::Milliseconds(ms);
}

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_RETRY_AFTER_H_
