// Squares of the row norms of W + scale * b a, for DoRA.
//
// Block = row, 256 threads, thread = every 256th column; per element one chain
// over ascending r, then the squares in double. Reads W once and a once per
// row, from L2; limit: L2.

#include "kernels/cuda/block_reduce.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/train/kernels.h"

namespace lorikeet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    MergedRowSquaresKernel(Rows<const T> w, Rows<const float> a,
                           Rows<const float> b, float scale, double* out) {
  SHARED_ARRAY(double, scratch, kWarps);
  const int64_t row = blockIdx.x;
  const T* const from = w.data + row * w.stride;
  const float* const factors = b.data + row * b.stride;
  double sum = 0;
  for (int64_t k = threadIdx.x; k < w.cols; k += kThreads) {
    float delta = 0.0f;
    for (int64_t r = 0; r < a.rows; ++r) {
      delta = fmaf(LoadReadOnly(factors + r),
                   LoadReadOnly(a.data + r * a.stride + k), delta);
    }
    const double value = fmaf(scale, delta, LoadF32(from + k));
    sum += value * value;
  }
  sum = BlockSum(sum, scratch);
  if (threadIdx.x == 0) Store(out + row, sum);
}

template <typename T>
cudaError_t LaunchSquares(Rows<const T> w, Rows<const float> a,
                          Rows<const float> b, float scale, double* out,
                          cudaStream_t stream) {
  if (w.rows == 0) return cudaSuccess;
  return Launch(
      MergedRowSquaresKernel<T>,
      {dim3(static_cast<unsigned>(w.rows)), dim3(kThreads), 0, stream}, w, a, b,
      scale, out);
}

}  // namespace

cudaError_t MergedRowSquares(Rows<const Bf16> w, Rows<const float> a,
                             Rows<const float> b, float scale, double* out,
                             cudaStream_t stream) {
  return LaunchSquares(w, a, b, scale, out, stream);
}
cudaError_t MergedRowSquares(Rows<const float> w, Rows<const float> a,
                             Rows<const float> b, float scale, double* out,
                             cudaStream_t stream) {
  return LaunchSquares(w, a, b, scale, out, stream);
}

}  // namespace lorikeet::cuda
