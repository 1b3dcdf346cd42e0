// Log-probabilities of a given token and of the best ones of each row.
//
// Block = row, 512 threads, thread = every 512th token: the maximum, the sum of
// exponentials in double and in a fixed order, then one pass per place in the
// list of the best. Reads 4 bytes per token and pass; limit: L2.

#include "kernels/cuda/block_reduce.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace lorikeet::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarpSize;

// The best token after `previous` in the order of candidates.
DEVICE Candidate NextBest(const float* logits, int32_t vocab,
                          const Candidate& previous, uint64_t* scratch) {
  Candidate mine{-INFINITY, kNoToken};
  for (int32_t i = threadIdx.x; i < vocab; i += kThreads) {
    const Candidate other{LoadReadOnly(logits + i), i};
    if (IsBetter(previous, other) && IsBetter(other, mine)) mine = other;
  }
  return BlockBest(mine, scratch);
}

__global__ void __launch_bounds__(kThreads)
    LogprobsKernel(Rows<const float> logits, const int32_t* targets,
                   int32_t count, TopLogprob* out) {
  SHARED_ARRAY(uint64_t, words, kWarps);
  SHARED_ARRAY(double, sums, kWarps);
  const float* const row = logits.data + int64_t{blockIdx.x} * logits.stride;
  const int32_t vocab = static_cast<int32_t>(logits.cols);
  const Candidate before_all{INFINITY, -1};
  Candidate best = NextBest(row, vocab, before_all, words);
  double sum = 0;
  for (int32_t i = threadIdx.x; i < vocab; i += kThreads) {
    sum += expf(LoadReadOnly(row + i) - best.value);
  }
  const double total = best.value + log(BlockSum(sum, sums));
  TopLogprob* const to = out + int64_t{blockIdx.x} * (count + 1);
  if (threadIdx.x == 0) {
    const int32_t target = targets[blockIdx.x];
    to[0] = {target, static_cast<float>(LoadReadOnly(row + target) - total)};
  }
  for (int32_t n = 1; n <= count; ++n) {
    if (threadIdx.x == 0) {
      to[n] = {best.token, static_cast<float>(best.value - total)};
    }
    if (n < count) best = NextBest(row, vocab, best, words);
  }
}

}  // namespace

cudaError_t Logprobs(Rows<const float> logits, const int32_t* targets,
                     int32_t count, TopLogprob* out, cudaStream_t stream) {
  if (logits.rows == 0) return cudaSuccess;
  return Launch(
      LogprobsKernel,
      {dim3(static_cast<unsigned>(logits.rows)), dim3(kThreads), 0, stream},
      logits, targets, count, out);
}

}  // namespace lorikeet::cuda
