// A reason is the machine-readable half of an error: an UPPER_SNAKE word that
// clients switch on, beside the status code and the text for people. It rides
// along as a payload of the status; the ways out (gRPC ErrorInfo, HTTP `code`)
// read it back.
//
// Pure.

#ifndef LORIKEET_BASE_REASON_H_
#define LORIKEET_BASE_REASON_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace lorikeet {

inline constexpr absl::string_view kReasonUrl = "lorikeet/reason";

// Returns `status` with `reason`, for example "ADAPTER_NOT_FOUND"; OK stays
// OK. A reason that is there already is replaced.
inline absl::Status WithReason(absl::Status status, absl::string_view reason) {
  if (!status.ok()) status.SetPayload(kReasonUrl, absl::Cord(reason));
  return status;
}

// The same, but a reason that is there already, nearer to the cause, stays.
inline absl::Status WithDefaultReason(absl::Status status,
                                      absl::string_view reason) {
  if (status.GetPayload(kReasonUrl).has_value()) return status;
  return WithReason(std::move(status), reason);
}

// Returns the reason, or "" if there is none.
inline std::string ReasonOf(const absl::Status& status) {
  const absl::optional<absl::Cord> reason = status.GetPayload(kReasonUrl);
  return reason.has_value() ? std::string(*reason) : std::string();
}

}  // namespace lorikeet

#endif  // LORIKEET_BASE_REASON_H_
