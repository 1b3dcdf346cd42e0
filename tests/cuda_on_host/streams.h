// Streams of the emulated device: queues of operations.
//
// Eagerly an operation runs when it is enqueued. In random order nothing runs
// until the host waits, and then the heads of all streams, as far as events let
// them, run in random order.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_STREAMS_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_STREAMS_H_

#include <cuda_runtime.h>

#include <functional>
#include <mutex>

namespace cuda_on_host {

// Every call of the runtime holds it: loaders call from threads of their own.
class ApiLock {
 public:
  ApiLock();

 private:
  std::lock_guard<std::recursive_mutex> lock_;
};

// Adds an operation, or a node of the graph that the stream is captured into.
// Inside of `run` the operation is the current one (stream_order.h).
cudaError_t Enqueue(cudaStream_t stream, std::function<void()> run);

// Waits as cudaDeviceSynchronize does.
cudaError_t SynchronizeAll();
bool IsCapturing(cudaStream_t stream);
// A finding if anything is being captured.
bool IsForbiddenInCapture(const char* what);

// Keeps the error for cudaGetLastError; returns it.
cudaError_t Fail(cudaError_t error);

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_STREAMS_H_
