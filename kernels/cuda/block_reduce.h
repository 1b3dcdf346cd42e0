// Sums, maxima and the like over the threads of a block, the same bits in every
// thread: lanes by shuffles, warps in order.
//
// `scratch` has one place per warp and is free again when the call returns.

#ifndef LORIKEET_KERNELS_CUDA_BLOCK_REDUCE_H_
#define LORIKEET_KERNELS_CUDA_BLOCK_REDUCE_H_

#include "kernels/cuda/device.h"

namespace lorikeet::cuda {

template <typename T, typename Op>
DEVICE T BlockReduce(T v, T* scratch, const Op& op) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    v = op(v, __shfl_xor_sync(kFullWarp, v, offset));
  }
  if (lane == 0) scratch[warp] = v;
  __syncthreads();
  T all = scratch[0];
  for (int w = 1; w < warps; ++w) all = op(all, scratch[w]);
  __syncthreads();
  return all;
}

template <typename T>
DEVICE T BlockSum(T v, T* scratch) {
  return BlockReduce(v, scratch, [](T a, T b) { return a + b; });
}

// A logit and its token; the better one is larger, of equals the lower token.
struct Candidate {
  float value;
  int32_t token;
};
DEVICE bool IsBetter(const Candidate& a, const Candidate& b) {
  return a.value > b.value || (a.value == b.value && a.token < b.token);
}
constexpr int32_t kNoToken = 0x7fffffff;

// As one word that shuffles can carry.
DEVICE Candidate BlockBest(Candidate mine, uint64_t* scratch) {
  const uint64_t best =
      BlockReduce(BitCast<uint64_t>(mine), scratch, [](uint64_t a, uint64_t b) {
        return IsBetter(BitCast<Candidate>(b), BitCast<Candidate>(a)) ? b : a;
      });
  return BitCast<Candidate>(best);
}

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_BLOCK_REDUCE_H_
