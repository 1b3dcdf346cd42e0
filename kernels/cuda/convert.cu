// f32 activations rounded to bf16 for tensor cores, rows padded with zeros to
// 16 bytes.
//
// Thread = 8 columns: two 16-byte loads (or 8 scalar ones), one 16-byte store.
// Moves 6 bytes per element; limit: L2, the activations of a step fit there.

#include "kernels/cuda/row_grid.h"
#include "kernels/cuda/vector.h"

namespace lorikeet::cuda {
namespace {

template <bool kIsVector>
__global__ void __launch_bounds__(kRowThreads)
    ToBf16Kernel(Rows<const float> x, Rows<Bf16> y) {
  const int64_t col = RowGridColumn(kVectorBf16);
  if (col >= y.stride) return;
  for (int64_t row = blockIdx.y; row < x.rows; row += gridDim.y) {
    const float* const from = x.data + row * x.stride + col;
    float f[8] = {};
    if constexpr (kIsVector) {
      float low[4], high[4] = {};
      LoadFloatsReadOnly(from, low);
      if (col + 4 < x.cols) LoadFloatsReadOnly(from + 4, high);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        f[i] = low[i];
        f[i + 4] = high[i];
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (col + i < x.cols) f[i] = LoadReadOnly(from + i);
      }
    }
    StoreGlobal16(reinterpret_cast<uint4*>(y.data + row * y.stride + col),
                  PackBf16x8(f));
  }
}

}  // namespace

cudaError_t ToBf16(Rows<const float> x, Rows<Bf16> y, cudaStream_t stream) {
  if (x.rows == 0) return cudaSuccess;
  const LaunchConfig config = RowGrid(x.rows, y.stride, kVectorBf16, stream);
  return IsVectorRows(x) ? Launch(ToBf16Kernel<true>, config, x, y)
                         : Launch(ToBf16Kernel<false>, config, x, y);
}

}  // namespace lorikeet::cuda
