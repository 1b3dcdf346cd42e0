// How much memory a server takes that has nothing to do.

#ifndef LORIKEET_CLI_RESIDENT_MEMORY_H_
#define LORIKEET_CLI_RESIDENT_MEMORY_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "server/options.h"

namespace lorikeet {

// Starts this program's `serve` on the same model in a process of its own,
// waits until it is ready, and returns its resident bytes, with a KV cache that
// is as good as none.
// Errors: INTERNAL if it does not get ready.
absl::StatusOr<int64_t> ResidentBytesOfIdleServer(const ServerOptions& options);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_RESIDENT_MEMORY_H_
