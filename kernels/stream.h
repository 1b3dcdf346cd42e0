// A Stream is a queue of operators of one device, executed in order.
//
// The host backends execute at once, so their stream is always empty. Faults
// of a device surface in Sync. Engine thread only.

#ifndef LORIKEET_KERNELS_STREAM_H_
#define LORIKEET_KERNELS_STREAM_H_

#include "absl/status/status.h"

namespace lorikeet {

class Stream {
 public:
  virtual ~Stream() = default;
  // Waits until all that was enqueued is done. Errors: INTERNAL, device fault.
  virtual absl::Status Sync() = 0;
};

// The stream of backends that compute on the calling thread.
class HostStream final : public Stream {
 public:
  absl::Status Sync() override { return absl::OkStatus(); }
};

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_STREAM_H_
