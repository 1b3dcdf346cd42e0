// What an error tells beside its code and text: the field that is wrong, the
// resource it is about, and the values its text names. All of it rides along
// as payloads of the status, as the reason does (base/reason.h); the ways out
// read it back.
//
// Pure.

#ifndef LORIKEET_SERVER_FRONTEND_ERROR_H_
#define LORIKEET_SERVER_FRONTEND_ERROR_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/reason.h"

namespace lorikeet {

// Returns INVALID_ARGUMENT "`field` `rest`" with the field's path, for example
// "sampling.top_p", and `reason`.
absl::Status FieldError(absl::string_view field, absl::string_view rest,
                        absl::string_view reason = "INVALID_FIELD");
// Returns FieldError "`field` `value` is not in `limits`", with the value and
// the limits as metadata.
absl::Status RangeError(absl::string_view field, absl::string_view value,
                        absl::string_view limits);

// Each returns `status` with one thing more; OK stays OK.
absl::Status WithField(absl::Status status, absl::string_view field);
// `type` is "adapter", "alias", "tenant" or "model".
absl::Status WithResource(absl::Status status, absl::string_view type,
                          absl::string_view name);
absl::Status WithMetadata(absl::Status status, absl::string_view key,
                          absl::string_view value);

// What was put in; empty if nothing was.
struct ErrorResource {
  std::string type;
  std::string name;
};
std::string FieldOf(const absl::Status& status);
ErrorResource ResourceOf(const absl::Status& status);
std::vector<std::pair<std::string, std::string>> MetadataOf(
    const absl::Status& status);

// When the same call may succeed, if it may: what the engine said, else what
// the reason means.
std::optional<absl::Duration> RetryDelayOf(const absl::Status& status);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_ERROR_H_
