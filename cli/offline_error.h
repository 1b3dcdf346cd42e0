// How commands that need no server report what went wrong.

#ifndef LORIKEET_CLI_OFFLINE_ERROR_H_
#define LORIKEET_CLI_OFFLINE_ERROR_H_

#include "absl/status/status.h"

namespace lorikeet {

// Writes "lorikeet: MESSAGE (REASON)" to stderr and sets *exit_code to 1;
// nothing if `status` is OK.
void ReportOfflineError(const absl::Status& status, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_OFFLINE_ERROR_H_
