// silu(gate) * up, y += x, y = gain * y + bias, and columns of x put into y.
//
// Thread = 4 columns (16-byte accesses) or 1 where rows are not aligned. They
// move 8 to 12 bytes per element; limit: L2 or DRAM.

#include "kernels/cuda/row_grid.h"
#include "kernels/cuda/vector.h"

namespace lorikeet::cuda {
namespace {

// z / (1 + exp(-z)); exp overflows to infinity below -88, and z / inf is -0.
DEVICE float Silu(float z) { return z / (1.0f + expf(-z)); }

template <int kWidth>
__global__ void __launch_bounds__(kRowThreads)
    SiluMulKernel(Rows<const float> gate, Rows<const float> up, Rows<float> y) {
  const int64_t col = RowGridColumn(kWidth);
  if (col >= y.cols) return;
  for (int64_t row = blockIdx.y; row < y.rows; row += gridDim.y) {
    float g[kWidth], u[kWidth];
    LoadFloats(gate.data + row * gate.stride + col, g);  // y may be gate
    LoadFloats(up.data + row * up.stride + col, u);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) g[i] = Silu(g[i]) * u[i];
    StoreFloats(y.data + row * y.stride + col, g);
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kRowThreads)
    ResidualAddKernel(Rows<const float> x, Rows<float> y) {
  const int64_t col = RowGridColumn(kWidth);
  if (col >= y.cols) return;
  for (int64_t row = blockIdx.y; row < y.rows; row += gridDim.y) {
    float a[kWidth], b[kWidth];
    LoadFloatsReadOnly(x.data + row * x.stride + col, a);
    LoadFloats(y.data + row * y.stride + col, b);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) b[i] += a[i];
    StoreFloats(y.data + row * y.stride + col, b);
  }
}

template <int kWidth, bool kHasBias>
__global__ void __launch_bounds__(kRowThreads)
    ScaleColumnsKernel(const float* gain, const float* bias, Rows<float> y) {
  const int64_t col = RowGridColumn(kWidth);
  if (col >= y.cols) return;
  float g[kWidth], b[kWidth] = {};
  LoadFloatsReadOnly(gain + col, g);
  if constexpr (kHasBias) LoadFloatsReadOnly(bias + col, b);
  for (int64_t row = blockIdx.y; row < y.rows; row += gridDim.y) {
    float f[kWidth];
    LoadFloats(y.data + row * y.stride + col, f);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      f[i] = kHasBias ? fmaf(g[i], f[i], b[i]) : g[i] * f[i];
    }
    StoreFloats(y.data + row * y.stride + col, f);
  }
}

__global__ void __launch_bounds__(kRowThreads)
    ScatterColumnsKernel(Rows<const float> x, const int32_t* cols,
                         Rows<float> y) {
  const int64_t col = RowGridColumn(1);
  if (col >= x.cols) return;
  const int64_t to = LoadReadOnly(cols + col);
  for (int64_t row = blockIdx.y; row < x.rows; row += gridDim.y) {
    Store(y.data + row * y.stride + to,
          LoadReadOnly(x.data + row * x.stride + col));
  }
}

template <int kWidth>
cudaError_t LaunchScaleColumns(const float* gain, const float* bias,
                               Rows<float> y, cudaStream_t stream) {
  return Launch(bias != nullptr ? ScaleColumnsKernel<kWidth, true>
                                : ScaleColumnsKernel<kWidth, false>,
                RowGrid(y.rows, y.cols, kWidth, stream), gain, bias, y);
}

}  // namespace

cudaError_t SiluMul(Rows<const float> gate, Rows<const float> up, Rows<float> y,
                    cudaStream_t stream) {
  if (y.rows == 0) return cudaSuccess;
  if (IsVectorRows(gate) && IsVectorRows(up) && IsVectorRows(y)) {
    return Launch(SiluMulKernel<4>, RowGrid(y.rows, y.cols, 4, stream), gate,
                  up, y);
  }
  return Launch(SiluMulKernel<1>, RowGrid(y.rows, y.cols, 1, stream), gate, up,
                y);
}

cudaError_t ResidualAdd(Rows<const float> x, Rows<float> y,
                        cudaStream_t stream) {
  if (y.rows == 0) return cudaSuccess;
  if (IsVectorRows(x) && IsVectorRows(y)) {
    return Launch(ResidualAddKernel<4>, RowGrid(y.rows, y.cols, 4, stream), x,
                  y);
  }
  return Launch(ResidualAddKernel<1>, RowGrid(y.rows, y.cols, 1, stream), x, y);
}

cudaError_t ScaleColumns(const float* gain, const float* bias, Rows<float> y,
                         cudaStream_t stream) {
  if (y.rows == 0) return cudaSuccess;
  const bool is_vector = IsVectorRows(y) && IsVectorAligned(gain) &&
                         (bias == nullptr || IsVectorAligned(bias));
  return is_vector ? LaunchScaleColumns<4>(gain, bias, y, stream)
                   : LaunchScaleColumns<1>(gain, bias, y, stream);
}

cudaError_t ScatterColumns(Rows<const float> x, const int32_t* cols,
                           Rows<float> y, cudaStream_t stream) {
  if (x.rows == 0 || x.cols == 0) return cudaSuccess;
  return Launch(ScatterColumnsKernel, RowGrid(x.rows, x.cols, 1, stream), x,
                cols, y);
}

}  // namespace lorikeet::cuda
