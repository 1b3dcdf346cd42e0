// Sums over the tokens of a batch, column by column.
//
// AddColumnDots: block = 32 columns, warp w = rows w, w + 8, ..., lane = column
// (a warp reads whole sectors); the warps' sums are added in order.
// EmbedBackward: block = a token's row of the table, rows of dy one after the
// other. Limit: DRAM for many columns, latency for few.

#include "kernels/cuda/row_grid.h"
#include "kernels/cuda/train/kernels.h"
#include "kernels/cuda/vector.h"

namespace lorikeet::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;

__global__ void __launch_bounds__(kThreads)
    AddColumnDotsKernel(Rows<const float> a, Rows<const float> b,
                        const float* factor, float* out) {
  SHARED_ARRAY(float, sums, kThreads);
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t col = int64_t{blockIdx.x} * kWarpSize + lane;
  const bool has = col < a.cols;
  float sum = 0.0f;
  for (int64_t row = warp; row < a.rows && has; row += kWarps) {
    float f = LoadReadOnly(a.data + row * a.stride + col);
    if (b.data != nullptr) f *= LoadReadOnly(b.data + row * b.stride + col);
    if (factor != nullptr) f *= LoadReadOnly(factor + row);
    sum += f;
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (warp != 0 || !has) return;
  for (int w = 1; w < kWarps; ++w) sum += sums[w * kWarpSize + lane];
  Store(out + col, Load(out + col) + sum);
}

__global__ void __launch_bounds__(kRowThreads)
    EmbedBackwardKernel(const int32_t* tokens, const int32_t* begins,
                        int32_t token_count, const int32_t* rows,
                        Rows<const float> dy, Rows<float> table) {
  const int64_t col = RowGridColumn(1);
  if (col >= dy.cols) return;
  for (int32_t i = blockIdx.y; i < token_count; i += gridDim.y) {
    float* const to =
        table.data + LoadReadOnly(tokens + i) * table.stride + col;
    float sum = Load(to);
    const int32_t end = LoadReadOnly(begins + i + 1);
    for (int32_t r = LoadReadOnly(begins + i); r < end; ++r) {
      sum += LoadReadOnly(dy.data + LoadReadOnly(rows + r) * dy.stride + col);
    }
    Store(to, sum);
  }
}

}  // namespace

cudaError_t AddColumnDots(Rows<const float> a, Rows<const float> b,
                          const float* factor, float* out,
                          cudaStream_t stream) {
  if (a.rows == 0 || a.cols == 0) return cudaSuccess;
  const unsigned blocks =
      static_cast<unsigned>((a.cols + kWarpSize - 1) / kWarpSize);
  return Launch(AddColumnDotsKernel, {dim3(blocks), dim3(kThreads), 0, stream},
                a, b, factor, out);
}

cudaError_t EmbedBackward(const int32_t* tokens, const int32_t* begins,
                          int64_t token_count, const int32_t* rows,
                          Rows<const float> dy, Rows<float> table,
                          cudaStream_t stream) {
  if (token_count == 0) return cudaSuccess;
  return Launch(EmbedBackwardKernel, RowGrid(token_count, dy.cols, 1, stream),
                tokens, begins, static_cast<int32_t>(token_count), rows, dy,
                table);
}

}  // namespace lorikeet::cuda
