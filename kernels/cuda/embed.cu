// Rows of a table, chosen by index.
//
// Thread = 8 columns of a bf16 table (one 16-byte load, two 16-byte stores) or
// 4 columns of f32; block = 256 threads of one row. Moves 6 (embed) or 8
// (gather) bytes per element; limit: DRAM.

#include "kernels/cuda/row_grid.h"
#include "kernels/cuda/vector.h"

namespace lorikeet::cuda {
namespace {

template <bool kIsVector>
__global__ void __launch_bounds__(kRowThreads)
    EmbedKernel(Rows<const Bf16> table, const int32_t* tokens, Rows<float> y) {
  const int64_t col = RowGridColumn(kVectorBf16);
  if (col >= y.cols) return;
  for (int64_t row = blockIdx.y; row < y.rows; row += gridDim.y) {
    const int64_t token = LoadReadOnly(tokens + row);
    if (token < 0) continue;
    float f[8];
    UnpackBf16(LoadReadOnly(reinterpret_cast<const uint4*>(
                   table.data + token * table.stride + col)),
               f);
    float* const out = y.data + row * y.stride + col;
    if constexpr (kIsVector) {
      StoreFloats(out, {f[0], f[1], f[2], f[3]});
      if (col + 4 < y.cols) StoreFloats(out + 4, {f[4], f[5], f[6], f[7]});
    } else {
      for (int i = 0; i < 8 && col + i < y.cols; ++i) Store(out + i, f[i]);
    }
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kRowThreads)
    GatherRowsKernel(Rows<const float> x, const int32_t* rows, Rows<float> y) {
  const int64_t col = RowGridColumn(kWidth);
  if (col >= y.cols) return;
  for (int64_t row = blockIdx.y; row < y.rows; row += gridDim.y) {
    const int64_t from = rows != nullptr ? LoadReadOnly(rows + row) : row;
    float f[kWidth];
    LoadFloatsReadOnly(x.data + from * x.stride + col, f);
    StoreFloats(y.data + row * y.stride + col, f);
  }
}

}  // namespace

cudaError_t Embed(Rows<const Bf16> table, const int32_t* tokens, Rows<float> y,
                  cudaStream_t stream) {
  if (y.rows == 0) return cudaSuccess;
  const LaunchConfig config = RowGrid(y.rows, y.cols, kVectorBf16, stream);
  return IsVectorRows(y) ? Launch(EmbedKernel<true>, config, table, tokens, y)
                         : Launch(EmbedKernel<false>, config, table, tokens, y);
}

cudaError_t GatherRows(Rows<const float> x, const int32_t* rows, Rows<float> y,
                       cudaStream_t stream) {
  if (y.rows == 0) return cudaSuccess;
  if (IsVectorRows(x) && IsVectorRows(y)) {
    return Launch(GatherRowsKernel<4>, RowGrid(y.rows, y.cols, 4, stream), x,
                  rows, y);
  }
  return Launch(GatherRowsKernel<1>, RowGrid(y.rows, y.cols, 1, stream), x,
                rows, y);
}

}  // namespace lorikeet::cuda
