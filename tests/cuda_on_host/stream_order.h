// Which operation of which stream is before which: vector clocks.
//
// Each operation (launch, copy, memset, GEMM, graph) gets an id and a clock
// when it is enqueued. Waits on events and of the host join clocks, so a
// missing wait shows in every order of execution.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_STREAM_ORDER_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_STREAM_ORDER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cuda_on_host {

// Per stream: how many of its operations are before.
using StreamClock = std::vector<uint32_t>;

void Join(const StreamClock& from, StreamClock* to);

// The operation that runs now.
struct RunningOperation {
  size_t stream = 0;
  uint32_t number = 0;  // in its stream, from 1
  StreamClock before;
};
// Makes it current and returns a fresh id for a part of it (a launch).
void BeginOperation(const RunningOperation& operation);
uint32_t NewOperationId();
uint32_t CurrentOperationId();
// Whether the operation with id `past` is before the current one, or a part of
// it.
bool IsOperationBefore(uint32_t past);

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_STREAM_ORDER_H_
