// Rows of W + sum_i scale_i B_i A_i, from the pristine W in one pass.
//
// Thread = 8 columns of one row: W and A by 16-byte loads, an element of B for
// the whole block. Per term one chain over ascending r from 0, then one FMA to
// the row, so a row does not depend on which others are asked for. Reads 2
// bytes per element of W from DRAM and 2 per rank row of A from L2, writes 2 (a
// merged weight) or 4 (rows for the host); limit: L2.

#include "kernels/cuda/row_grid.h"
#include "kernels/cuda/vector.h"

namespace lorikeet::cuda {
namespace {

// delta[i] = the low-rank part of one row.
DEVICE void LowRank(const MergeTermArgs& term, int64_t row, int64_t col,
                    float (&delta)[8]) {
  const Bf16* const b = term.b + row * term.b_stride;
#pragma unroll
  for (int i = 0; i < 8; ++i) delta[i] = 0.0f;
  for (int r = 0; r < term.rank; ++r) {
    const float factor = LoadF32(b + r);
    float a[8];
    UnpackBf16(LoadReadOnly(reinterpret_cast<const uint4*>(
                   term.a + int64_t{r} * term.a_stride + col)),
               a);
#pragma unroll
    for (int i = 0; i < 8; ++i) delta[i] = fmaf(factor, a[i], delta[i]);
  }
}

DEVICE void StoreMerged(float* to, const float (&f)[8]) {
  StoreFloats(to, {f[0], f[1], f[2], f[3]});
  StoreFloats(to + 4, {f[4], f[5], f[6], f[7]});
}
DEVICE void StoreMerged(Bf16* to, const float (&f)[8]) {
  StoreGlobal16(reinterpret_cast<uint4*>(to), PackBf16x8(f));
}

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    MergeRowsKernel(Rows<const Bf16> w, const MergeTermArgs* terms,
                    int32_t term_count, const float* gain, Rows<T> out) {
  const int64_t col = RowGridColumn(kVectorBf16);
  if (col >= out.stride) return;
  for (int64_t row = blockIdx.y; row < out.rows; row += gridDim.y) {
    float f[8];
    UnpackBf16(LoadReadOnly(reinterpret_cast<const uint4*>(
                   w.data + row * w.stride + col)),
               f);
    for (int t = 0; t < term_count; ++t) {
      const MergeTermArgs term = terms[t];
      float delta[8];
      LowRank(term, row, col, delta);
#pragma unroll
      for (int i = 0; i < 8; ++i) f[i] = fmaf(term.scale, delta[i], f[i]);
    }
    if (gain != nullptr) {
      const float g = LoadReadOnly(gain + row);
#pragma unroll
      for (int i = 0; i < 8; ++i) f[i] *= g;
    }
    StoreMerged(out.data + row * out.stride + col, f);
  }
}

template <typename T>
cudaError_t LaunchMerge(Rows<const Bf16> w, const MergeTermArgs* terms,
                        int32_t term_count, const float* gain, Rows<T> out,
                        cudaStream_t stream) {
  if (out.rows == 0) return cudaSuccess;
  return Launch(MergeRowsKernel<T>,
                RowGrid(out.rows, out.stride, kVectorBf16, stream), w, terms,
                term_count, gain, out);
}

}  // namespace

cudaError_t MergeRows(Rows<const Bf16> w, const MergeTermArgs* terms,
                      int32_t term_count, const float* gain, Rows<float> out,
                      cudaStream_t stream) {
  return LaunchMerge(w, terms, term_count, gain, out, stream);
}
cudaError_t MergeRows(Rows<const Bf16> w, const MergeTermArgs* terms,
                      int32_t term_count, const float* gain, Rows<Bf16> out,
                      cudaStream_t stream) {
  return LaunchMerge(w, terms, term_count, gain, out, stream);
}

}  // namespace lorikeet::cuda
