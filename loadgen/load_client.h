// A LoadClient sends a workload to a server and measures each request.
//
// Latency counts from the moment a request was due, not from when it was sent:
// what waits because too many are in flight waits in the figures too, so that a
// slow server cannot slow its own measurement down (coordinated omission). The
// number in flight is bounded. Thread-compatible.

#ifndef LORIKEET_LOADGEN_LOAD_CLIENT_H_
#define LORIKEET_LOADGEN_LOAD_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "loadgen/workload.h"

namespace lorikeet {

struct LoadClientOptions {
  // "host:port"
  std::string server;
  // Connections, used in turn.
  int connections = 1;
  // Most requests in flight; the concurrency of a closed loop.
  uint32_t max_in_flight = 256;
  // Of one request, from its sending.
  absl::Duration request_timeout = absl::InfiniteDuration();
  // Of the sampler; 0 = greedy.
  float temperature = 0;
};

// What one request gave. Times are since the beginning of the load.
struct LoadResult {
  size_t task = 0;
  absl::Status status;
  absl::Duration due = absl::ZeroDuration();
  absl::Duration sent = absl::ZeroDuration();
  absl::Duration first_token = absl::ZeroDuration();
  absl::Duration last_token = absl::ZeroDuration();
  absl::Duration end = absl::ZeroDuration();
  // Between messages with tokens, seconds.
  std::vector<float> gaps_s;
  uint32_t prompt_tokens = 0;
  uint32_t cached_tokens = 0;
  uint32_t output_tokens = 0;
};

class LoadClient {
 public:
  explicit LoadClient(const LoadClientOptions& options);
  ~LoadClient();
  LoadClient(const LoadClient&) = delete;
  LoadClient& operator=(const LoadClient&) = delete;

  // Sends all and returns when the last has ended; results in order of their
  // ends.
  std::vector<LoadResult> Run(Workload& workload);

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace lorikeet

#endif  // LORIKEET_LOADGEN_LOAD_CLIENT_H_
