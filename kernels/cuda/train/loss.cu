// Cross entropy of rows of logits with one target each, and its gradient.
//
// Block = row, 512 threads, thread = every 512th token: the largest logit, the
// sum of exponentials in a fixed order, then the gradient in place. Reads the
// row three times and writes it once; limit: L2.

#include "kernels/cuda/block_reduce.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/train/kernels.h"

namespace lorikeet::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarpSize;

__global__ void __launch_bounds__(kThreads)
    CrossEntropyKernel(Rows<float> logits, const int32_t* targets,
                       float gradient_scale, RowLoss* out) {
  SHARED_ARRAY(uint64_t, words, kWarps);
  SHARED_ARRAY(double, sums, kWarps);
  float* const row = logits.data + int64_t{blockIdx.x} * logits.stride;
  const int32_t vocab = static_cast<int32_t>(logits.cols);
  const int32_t target = LoadReadOnly(targets + blockIdx.x);
  Candidate mine{-INFINITY, kNoToken};
  for (int32_t i = threadIdx.x; i < vocab; i += kThreads) {
    const Candidate other{Load(row + i), i};
    if (IsBetter(other, mine)) mine = other;
  }
  const Candidate best = BlockBest(mine, words);
  double sum = 0;
  for (int32_t i = threadIdx.x; i < vocab; i += kThreads) {
    sum += expf(Load(row + i) - best.value);
  }
  sum = BlockSum(sum, sums);
  if (threadIdx.x == 0) {
    out[blockIdx.x] = {best.value + log(sum) - Load(row + target), best.token};
  }
  if (gradient_scale == 0.0f) return;
  __syncthreads();  // the target's logit was read
  const float inverse = static_cast<float>(1 / sum);
  for (int32_t i = threadIdx.x; i < vocab; i += kThreads) {
    const float p = expf(Load(row + i) - best.value) * inverse;
    Store(row + i, gradient_scale * (i == target ? p - 1.0f : p));
  }
}

}  // namespace

cudaError_t CrossEntropy(Rows<float> logits, const int32_t* targets,
                         float gradient_scale, RowLoss* out,
                         cudaStream_t stream) {
  if (logits.rows == 0) return cudaSuccess;
  return Launch(
      CrossEntropyKernel,
      {dim3(static_cast<unsigned>(logits.rows)), dim3(kThreads), 0, stream},
      logits, targets, gradient_scale, out);
}

}  // namespace lorikeet::cuda
