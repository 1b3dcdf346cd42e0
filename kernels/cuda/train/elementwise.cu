// The gradients of silu(gate) * up, dropout, and zeros.
//
// Thread = one column (a warp reads 128 neighbouring bytes); of dropout four
// elements of one Philox counter, which may be those of two rows. They move 20
// and 8 bytes per element; limit: L2 or DRAM.

#include <algorithm>

#include "kernels/cuda/philox.h"
#include "kernels/cuda/row_grid.h"
#include "kernels/cuda/train/kernels.h"
#include "kernels/cuda/vector.h"

namespace lorikeet::cuda {
namespace {

__global__ void __launch_bounds__(kRowThreads) ClearKernel(Rows<float> x) {
  const int64_t col = RowGridColumn(1);
  if (col >= x.cols) return;
  for (int64_t row = blockIdx.y; row < x.rows; row += gridDim.y) {
    Store(x.data + row * x.stride + col, 0.0f);
  }
}

__global__ void __launch_bounds__(kRowThreads)
    SiluMulBackwardKernel(Rows<const float> gate, Rows<const float> up,
                          Rows<const float> dy, Rows<float> dgate,
                          Rows<float> dup) {
  const int64_t col = RowGridColumn(1);
  if (col >= gate.cols) return;
  for (int64_t row = blockIdx.y; row < gate.rows; row += gridDim.y) {
    const float g = LoadReadOnly(gate.data + row * gate.stride + col);
    const float u = LoadReadOnly(up.data + row * up.stride + col);
    const float d = Load(dy.data + row * dy.stride + col);
    const float s = 1.0f / (1.0f + expf(-g));
    Store(dgate.data + row * dgate.stride + col,
          d * u * s * (1.0f + g * (1.0f - s)));
    Store(dup.data + row * dup.stride + col, d * g * s);
  }
}

__global__ void __launch_bounds__(kRowThreads)
    DropoutKernel(Rows<const float> x, DropoutArgs args, Rows<float> y) {
  const int64_t size = x.rows * x.cols;
  const int64_t step = int64_t{gridDim.x} * kRowThreads;
  for (int64_t group = int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
       group * 4 < size; group += step) {
    uint32_t words[4];
    DevicePhilox(args.seed, args.stream, static_cast<uint64_t>(group), words);
    int64_t row = group * 4 / x.cols, col = group * 4 % x.cols;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (group * 4 + i >= size) break;
      const float f = Load(x.data + row * x.stride + col);  // y may be x
      const float value = (words[i] >> 8) < args.limit ? 0.0f : f * args.keep;
      float* const to = y.data + row * y.stride + col;
      Store(to, args.accumulate != 0 ? Load(to) + value : value);
      if (++col == x.cols) {
        col = 0;
        ++row;
      }
    }
  }
}

}  // namespace

cudaError_t Clear(Rows<float> x, cudaStream_t stream) {
  if (x.rows == 0 || x.cols == 0) return cudaSuccess;
  return Launch(ClearKernel, RowGrid(x.rows, x.cols, 1, stream), x);
}

cudaError_t SiluMulBackward(Rows<const float> gate, Rows<const float> up,
                            Rows<const float> dy, Rows<float> dgate,
                            Rows<float> dup, cudaStream_t stream) {
  if (gate.rows == 0) return cudaSuccess;
  return Launch(SiluMulBackwardKernel, RowGrid(gate.rows, gate.cols, 1, stream),
                gate, up, dy, dgate, dup);
}

cudaError_t Dropout(Rows<const float> x, const DropoutArgs& args, Rows<float> y,
                    cudaStream_t stream) {
  if (x.rows == 0 || x.cols == 0) return cudaSuccess;
  constexpr int64_t kMostBlocks = 4096;
  const int64_t per_block = int64_t{4} * kRowThreads;
  const int64_t blocks =
      std::min(kMostBlocks, (x.rows * x.cols + per_block - 1) / per_block);
  return Launch(
      DropoutKernel,
      {dim3(static_cast<unsigned>(blocks)), dim3(kRowThreads), 0, stream}, x,
      args, y);
}

}  // namespace lorikeet::cuda
