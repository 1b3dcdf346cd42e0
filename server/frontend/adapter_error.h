// Errors of the adapter store as the control plane tells them: with the
// resource they are about, and with a reason where the store gave none.
//
// Pure.

#ifndef LORIKEET_SERVER_FRONTEND_ADAPTER_ERROR_H_
#define LORIKEET_SERVER_FRONTEND_ADAPTER_ERROR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lorikeet {

// `type` is "adapter" or "alias". OK stays OK.
absl::Status About(const absl::Status& status, absl::string_view type,
                   const std::string& tenant, const std::string& name);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_ADAPTER_ERROR_H_
