// How a subcommand finds its server and tells what went wrong there.
//
// Pure, but for ReportError.

#ifndef LORIKEET_CLI_CHANNEL_H_
#define LORIKEET_CLI_CHANNEL_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace CLI {
class App;
}

namespace lorikeet {

struct ServerFlags {
  // "host:port"
  std::string server = "127.0.0.1:8001";
  // Of one call; 0 = none.
  double timeout_s = 0;

  absl::Duration timeout() const {
    return timeout_s > 0 ? absl::Seconds(timeout_s) : absl::InfiniteDuration();
  }
};

// Adds --server (or the environment's LORIKEET_SERVER) and --timeout.
void AddServerFlags(CLI::App& app, ServerFlags* flags);

// Returns the text for people: "NOT_FOUND: no task ... [TASK_NOT_FOUND]".
std::string DescribeError(const absl::Status& status);

// Writes the error to stderr. Returns the exit code: 0 if `status` is OK, 2 for
// a mistake of the caller, else 1.
int ReportError(const absl::Status& status);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_CHANNEL_H_
