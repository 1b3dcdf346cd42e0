// The way back through y = x / rms(x) * weight:
//
//   r = 1 / sqrt(mean(x^2) + eps)
//   dx = r weight dy - x r^3 sum(weight dy x) / cols
//
// Block = row, 256 threads, thread = every 256th column; sums by shuffles, then
// warps in order. Each row is read twice, the second time from L1. Moves 12
// bytes per element; limit: L2.

#include "kernels/cuda/block_reduce.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/train/kernels.h"

namespace lorikeet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

__global__ void __launch_bounds__(kThreads)
    InverseRmsKernel(Rows<const float> x, float eps, float* inverse) {
  SHARED_ARRAY(float, scratch, kWarps);
  const float* const row = x.data + int64_t{blockIdx.x} * x.stride;
  float sum = 0.0f;
  for (int64_t c = threadIdx.x; c < x.cols; c += kThreads) {
    const float f = LoadReadOnly(row + c);
    sum = fmaf(f, f, sum);
  }
  sum = BlockSum(sum, scratch);
  if (threadIdx.x == 0) {
    Store(inverse + blockIdx.x, rsqrtf(sum / static_cast<float>(x.cols) + eps));
  }
}

__global__ void __launch_bounds__(kThreads)
    RmsNormBackwardKernel(Rows<const float> x, const float* weight, float eps,
                          Rows<const float> dy, int32_t accumulate,
                          Rows<float> dx) {
  SHARED_ARRAY(float, scratch, kWarps);
  const float* const in = x.data + int64_t{blockIdx.x} * x.stride;
  const float* const g = dy.data + int64_t{blockIdx.x} * dy.stride;
  float* const out = dx.data + int64_t{blockIdx.x} * dx.stride;
  float squares = 0.0f, along = 0.0f;
  for (int64_t c = threadIdx.x; c < x.cols; c += kThreads) {
    const float f = LoadReadOnly(in + c);
    squares = fmaf(f, f, squares);
    along = fmaf(LoadReadOnly(weight + c) * Load(g + c), f, along);
  }
  const float cols = static_cast<float>(x.cols);
  const float r = rsqrtf(BlockSum(squares, scratch) / cols + eps);
  const float back = BlockSum(along, scratch) * r * r * r / cols;
  for (int64_t c = threadIdx.x; c < x.cols; c += kThreads) {
    const float value = r * LoadReadOnly(weight + c) * Load(g + c) -
                        LoadReadOnly(in + c) * back;  // dx may be dy
    Store(out + c, accumulate != 0 ? Load(out + c) + value : value);
  }
}

}  // namespace

cudaError_t InverseRms(Rows<const float> x, float eps, float* inverse,
                       cudaStream_t stream) {
  if (x.rows == 0) return cudaSuccess;
  return Launch(
      InverseRmsKernel,
      {dim3(static_cast<unsigned>(x.rows)), dim3(kThreads), 0, stream}, x, eps,
      inverse);
}

cudaError_t RmsNormBackward(Rows<const float> x, const float* weight, float eps,
                            Rows<const float> dy, bool accumulate,
                            Rows<float> dx, cudaStream_t stream) {
  if (x.rows == 0) return cudaSuccess;
  return Launch(
      RmsNormBackwardKernel,
      {dim3(static_cast<unsigned>(x.rows)), dim3(kThreads), 0, stream}, x,
      weight, eps, dy, accumulate ? 1 : 0, dx);
}

}  // namespace lorikeet::cuda
