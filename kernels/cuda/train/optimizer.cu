// AdamW, and squares of gradients for clipping.
//
// AdamW: thread = one parameter; moves 28 bytes for each. TileSquares: block =
// tile of 4096 numbers, thread = every 256th, in double. Limit: DRAM.

#include <algorithm>

#include "kernels/cuda/block_reduce.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/train/kernels.h"

namespace lorikeet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

__global__ void __launch_bounds__(kThreads)
    AdamWKernel(AdamWArgs args, const float* gradient, float* parameter,
                float* m, float* v, int64_t count) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count;
       i += step) {
    const float g = args.gradient_scale * LoadReadOnly(gradient + i);
    const float mi = fmaf(args.beta1, Load(m + i), (1.0f - args.beta1) * g);
    const float vi = fmaf(args.beta2, Load(v + i), (1.0f - args.beta2) * g * g);
    Store(m + i, mi);
    Store(v + i, vi);
    const float root = sqrtf(vi) * args.inverse_root + args.eps;
    Store(parameter + i,
          args.decay * Load(parameter + i) - args.rate * mi / root);
  }
}

__global__ void __launch_bounds__(kThreads)
    TileSquaresKernel(const float* x, int64_t count, double* out) {
  SHARED_ARRAY(double, scratch, kWarps);
  const int64_t begin = int64_t{blockIdx.x} * kSquaresTile;
  const int64_t end =
      begin + kSquaresTile < count ? begin + kSquaresTile : count;
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const double f = LoadReadOnly(x + i);
    sum += f * f;
  }
  sum = BlockSum(sum, scratch);
  if (threadIdx.x == 0) Store(out + blockIdx.x, sum);
}

unsigned Blocks(int64_t count, int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

}  // namespace

cudaError_t AdamW(const AdamWArgs& args, const float* gradient,
                  float* parameter, float* m, float* v, int64_t count,
                  cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  constexpr unsigned kMostBlocks = 4096;
  return Launch(AdamWKernel,
                {dim3(std::min(kMostBlocks, Blocks(count, kThreads))),
                 dim3(kThreads), 0, stream},
                args, gradient, parameter, m, v, count);
}

cudaError_t TileSquares(const float* x, int64_t count, double* out,
                        cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return Launch(TileSquaresKernel,
                {dim3(Blocks(count, kSquaresTile)), dim3(kThreads), 0, stream},
                x, count, out);
}

}  // namespace lorikeet::cuda
