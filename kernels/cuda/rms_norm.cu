// y[i, :] = x[i, :] / sqrt(mean(x[i, :]^2) + eps) * weight
//
// Block = row, 128 threads; thread = 4 neighbouring columns (16-byte accesses),
// then those 512 further on. The row is read twice, the second time from L1.
// The sum's order depends on the width alone: columns of a thread ascending,
// lanes by shuffles, warps in order. Moves 8 bytes per element; limit: L2.

#include "kernels/cuda/launch.h"
#include "kernels/cuda/vector.h"

namespace lorikeet::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpSize;

DEVICE float BlockSum(float v) {
  SHARED_ARRAY(float, partial, kWarps);
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  v = WarpSum(v);
  if (lane == 0) partial[warp] = v;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) sum += partial[i];
  return sum;
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    RmsNormKernel(Rows<const float> x, const float* weight, float eps,
                  Rows<float> y) {
  const float* const in = x.data + int64_t{blockIdx.x} * x.stride;
  float* const out = y.data + int64_t{blockIdx.x} * y.stride;
  float sum = 0.0f;
  for (int64_t c = threadIdx.x * kWidth; c < x.cols; c += kThreads * kWidth) {
    float f[kWidth];
    LoadFloats(in + c, f);  // y may be x
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum += f[i] * f[i];
  }
  const float mean = BlockSum(sum) / static_cast<float>(x.cols);
  const float scale = rsqrtf(mean + eps);
  for (int64_t c = threadIdx.x * kWidth; c < x.cols; c += kThreads * kWidth) {
    float f[kWidth], w[kWidth];
    LoadFloats(in + c, f);
    LoadFloatsReadOnly(weight + c, w);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) f[i] = f[i] * scale * w[i];
    StoreFloats(out + c, f);
  }
}

}  // namespace

cudaError_t RmsNorm(Rows<const float> x, const float* weight, float eps,
                    Rows<float> y, cudaStream_t stream) {
  if (x.rows == 0) return cudaSuccess;
  const LaunchConfig config{dim3(static_cast<unsigned>(x.rows)), dim3(kThreads),
                            0, stream};
  const bool is_vector =
      IsVectorRows(x) && IsVectorRows(y) && IsVectorAligned(weight);
  return is_vector ? Launch(RmsNormKernel<4>, config, x, weight, eps, y)
                   : Launch(RmsNormKernel<1>, config, x, weight, eps, y);
}

}  // namespace lorikeet::cuda
