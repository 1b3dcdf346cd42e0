// y = x W^T + bias in one order for every number of rows: the products of the
// batch-invariant mode.
//
// Block = (tile of rows, tile of outputs). Outputs lie on M of the mma, rows on
// N, so that few rows waste little; every element is one accumulator that takes
// k in ascending steps of 16, whatever the tile, so a row's bits depend on
// nothing but the row and W. x and W come by cp.async into a ring of places of
// 64 columns. Up to 16 rows: narrow tiles and a deep ring, to keep DRAM busy.
// More: tiles of 64 rows by 128 outputs, to keep the tensor cores busy. Reads W
// once per tile of rows; limit: DRAM for few rows, mma for many.

#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace lorikeet::cuda {
namespace {

constexpr int kStepK = 64;
constexpr int kPitch = kStepK + 8;  // no bank conflicts in ldmatrix

// kM tiles of 16 outputs for each warp, kN tiles of 8 rows for all of them.
template <int kWarps, int kM, int kN, int kPlaces>
struct Shape {
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kOutputs = kWarps * kM * 16;
  static constexpr int kRows = kN * 8;
  static constexpr int kPlace = (kOutputs + kRows) * kPitch;  // elements
  static constexpr size_t kSharedBytes =
      size_t{kPlaces} * kPlace * sizeof(Bf16);
};

// Columns [k, k + 64) of kCount rows from `begin` on; zeros beyond the matrix.
template <int kCount, int kThreads>
DEVICE void LoadColumns(const Rows<const Bf16>& m, int64_t begin, int64_t k,
                        Bf16* to) {
  for (int i = threadIdx.x; i < kCount * (kStepK / 8); i += kThreads) {
    const int row = i / (kStepK / 8), col = i % (kStepK / 8) * 8;
    const bool has = begin + row < m.rows && k + col < m.cols;
    CpAsync16(to + row * kPitch + col,
              has ? m.data + (begin + row) * m.stride + k + col : m.data,
              has ? 16 : 0);
  }
}

template <int kWarps, int kM, int kN, int kPlaces>
__global__ void __launch_bounds__(kWarps* kWarpSize)
    GemmKernel(Rows<const Bf16> x, Rows<const Bf16> w, const float* bias,
               Rows<float> y) {
  using S = Shape<kWarps, kM, kN, kPlaces>;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t row_begin = int64_t{blockIdx.x} * S::kRows;
  const int64_t out_begin = int64_t{blockIdx.y} * S::kOutputs;
  const int steps = static_cast<int>((x.cols + kStepK - 1) / kStepK);
  Bf16* const places = DynamicShared<Bf16>();
  const auto load_step = [&](int step) {
    Bf16* const place = places + step % kPlaces * S::kPlace;
    const int64_t k = int64_t{step} * kStepK;
    LoadColumns<S::kOutputs, S::kThreads>(w, out_begin, k, place);
    LoadColumns<S::kRows, S::kThreads>(x, row_begin, k,
                                       place + S::kOutputs * kPitch);
  };

  float sums[kM][kN][4] = {};
#pragma unroll
  for (int step = 0; step < kPlaces - 1; ++step) {
    if (step < steps) load_step(step);
    CpAsyncCommit();
  }
  for (int step = 0; step < steps; ++step) {
    CpAsyncWait<kPlaces - 2>();
    // Step `step` has landed, and nobody reads the place of the step before.
    __syncthreads();
    if (step + kPlaces - 1 < steps) load_step(step + kPlaces - 1);
    CpAsyncCommit();
    const Bf16* const w_s = places + step % kPlaces * S::kPlace;
    const Bf16* const x_s = w_s + S::kOutputs * kPitch;
#pragma unroll
    for (int k = 0; k < kStepK; k += 16) {
      uint32_t a[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        LdMatrixX4(a[m], w_s + ((warp * kM + m) * 16 + lane % 16) * kPitch + k +
                             lane / 16 * 8);
      }
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        uint32_t b[4];
        LdMatrixX4(b, x_s + (n * 8 + lane % 8 + lane / 16 * 8) * kPitch + k +
                          lane / 8 % 2 * 8);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          MmaM16N8K16(sums[m][n], a[m], b[0], b[1]);
          MmaM16N8K16(sums[m][n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
  CpAsyncWait<0>();

#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t out =
          out_begin + (warp * kM + m) * 16 + half * 8 + lane / 4;
      if (out >= w.rows) continue;
      const float add = bias != nullptr ? LoadReadOnly(bias + out) : 0.0f;
#pragma unroll
      for (int n = 0; n < kN; ++n) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int64_t row = row_begin + n * 8 + lane % 4 * 2 + j;
          if (row >= x.rows) continue;
          Store(y.data + row * y.stride + out, sums[m][n][half * 2 + j] + add);
        }
      }
    }
  }
}

template <int kWarps, int kM, int kN, int kPlaces>
cudaError_t LaunchGemm(Rows<const Bf16> x, Rows<const Bf16> w,
                       const float* bias, Rows<float> y, cudaStream_t stream) {
  using S = Shape<kWarps, kM, kN, kPlaces>;
  const auto kernel = GemmKernel<kWarps, kM, kN, kPlaces>;
  const cudaError_t error =
      cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(S::kSharedBytes));
  if (error != cudaSuccess) return error;
  const int64_t row_tiles = (x.rows + S::kRows - 1) / S::kRows;
  const int64_t out_tiles = (w.rows + S::kOutputs - 1) / S::kOutputs;
  return Launch(
      kernel,
      {dim3(static_cast<unsigned>(row_tiles), static_cast<unsigned>(out_tiles)),
       dim3(S::kThreads), S::kSharedBytes, stream},
      x, w, bias, y);
}

constexpr int64_t kFewRows = 16;

}  // namespace

cudaError_t Gemm(Rows<const Bf16> x, Rows<const Bf16> w, const float* bias,
                 Rows<float> y, cudaStream_t stream) {
  if (x.rows == 0) return cudaSuccess;
  return x.rows <= kFewRows ? LaunchGemm<2, 1, 2, 6>(x, w, bias, y, stream)
                            : LaunchGemm<4, 2, 8, 3>(x, w, bias, y, stream);
}

}  // namespace lorikeet::cuda
