// silu(gate) * up, and y += x.
//
// Thread = 4 columns (16-byte accesses) or 1 where rows are not aligned. Both
// move 12 bytes per element; limit: L2 or DRAM.

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

}  // namespace lorikeet::cuda
