// Rotates pairs (x[j], x[j + head_dim / 2]) of each head in place.
//
// Thread = one pair of one row; neighbouring threads take neighbouring j, so a
// warp reads whole sectors where head_dim / 2 is a multiple of 8. Moves 16
// bytes per pair and reads cos and sin from L2; limit: L2.

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/row_grid.h"

namespace lorikeet::cuda {
namespace {

__global__ void __launch_bounds__(kRowThreads)
    RopeKernel(Rows<float> x, int32_t head_dim, const float* cos,
               const float* sin) {
  const int64_t pair = RowGridColumn(1);
  if (pair >= x.cols / 2) return;
  const int32_t half = head_dim / 2;
  const int64_t head = pair / half, j = pair % half;
  for (int64_t row = blockIdx.y; row < x.rows; row += gridDim.y) {
    float* const p = x.data + row * x.stride + head * head_dim + j;
    const float c = LoadReadOnly(cos + row * half + j);
    const float s = LoadReadOnly(sin + row * half + j);
    const float a = Load(p), b = Load(p + half);
    Store(p, a * c - b * s);
    Store(p + half, b * c + a * s);
  }
}

}  // namespace

cudaError_t Rope(Rows<float> x, int64_t head_dim, const float* cos,
                 const float* sin, cudaStream_t stream) {
  if (x.rows == 0) return cudaSuccess;
  return Launch(RopeKernel, RowGrid(x.rows, x.cols / 2, 1, stream), x,
                static_cast<int32_t>(head_dim), cos, sin);
}

}  // namespace lorikeet::cuda
