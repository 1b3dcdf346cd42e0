// Which thread of a block knows what of which other, between two barriers.
//
// A barrier of the whole block starts a new epoch and orders everything; inside
// of an epoch __syncwarp and named barriers join the clocks of their members.
// Shuffles, votes, ldmatrix and mma order nothing, as on the GPU.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_HAPPENS_BEFORE_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_HAPPENS_BEFORE_H_

#include <vector>

#include "tests/cuda_on_host/scheduler.h"

namespace cuda_on_host {

// What each of `members` did so far is before what any of them does next.
void JoinClocks(Block& block, const std::vector<Thread*>& members);

// A place in the past of a block.
struct Moment {
  uint32_t block;  // instance
  uint32_t epoch, thread, clock;
};
// Whether `past` is before everything that thread `t` does now.
bool IsBefore(const Moment& past, const Thread& t);

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_HAPPENS_BEFORE_H_
