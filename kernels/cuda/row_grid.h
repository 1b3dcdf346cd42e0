// The grid of elementwise kernels: block (x, y) does 256 threads' columns of
// row y, then of rows y + gridDim.y, ... Rows may be more than the 65535 blocks
// that a grid has in y.

#ifndef LORIKEET_KERNELS_CUDA_ROW_GRID_H_
#define LORIKEET_KERNELS_CUDA_ROW_GRID_H_

#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace lorikeet::cuda {

inline constexpr int kRowThreads = 256;
inline constexpr int64_t kMaxGridY = 65535;

// One thread per `width` columns.
inline LaunchConfig RowGrid(int64_t rows, int64_t cols, int64_t width,
                            cudaStream_t stream) {
  const int64_t per_block = kRowThreads * width;
  return {dim3(static_cast<unsigned>((cols + per_block - 1) / per_block),
               static_cast<unsigned>(std::min(rows, kMaxGridY))),
          dim3(kRowThreads), 0, stream};
}

DEVICE int64_t RowGridColumn(int width) {
  return (int64_t{blockIdx.x} * kRowThreads + threadIdx.x) * width;
}

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_ROW_GRID_H_
