// Grouped LoRA shrink: v = x A^T for every adapter of a step at its own rank.
//
// Block = (tile, piece of K), 4 warps. A tile is 16 rank rows, counted over the
// linears of a group (the rows of A_q, A_k and A_v stand below one another), on
// M of the mma, and up to 16 rows of x on N. A piece is 512 columns of K, in 8
// stages of 64; each warp multiplies its own 16 of a stage, and the warps' sums
// are added in order at the end. So v depends on K alone, not on the batch.
//
// Stages come by cp.async, kStages deep, with one barrier per stage: it
// publishes stage s and says that all are done with stage s - 1, whose place is
// filled right after. Reads 2 bytes per element of A once; limit: DRAM.

#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace lorikeet::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kStages = 4;
constexpr int kStageK = 64;
constexpr int kPitch = kStageK + 8;  // + 16 bytes: ldmatrix without conflicts
constexpr int kMatrix = 16 * kPitch;
constexpr int kSumPitch = 20;  // floats; 17 would be a 4-way bank conflict
constexpr size_t kSharedBytes = size_t{kStages} * 2 * kMatrix * sizeof(Bf16);
static_assert(4 * 16 * kSumPitch * sizeof(float) <= kSharedBytes);

// Rank row `r` of a term: which linear's, and which row there.
struct RankRow {
  int part;
  int row;
};
DEVICE RankRow FindRankRow(const LoraTermArgs& term, int r) {
  RankRow found{0, r};
#pragma unroll
  for (int p = 0; p + 1 < kMaxLoraParts; ++p) {
    if (found.part == p && found.row >= term.parts[p].rank) {
      found.row -= term.parts[p].rank;
      found.part = p + 1;
    }
  }
  return found;
}

__global__ void __launch_bounds__(kThreads)
    LoraShrinkKernel(Rows<const Bf16> x, const LoraTermArgs* terms,
                     const ShrinkTile* tiles, float* partials, int64_t v_size) {
  const ShrinkTile tile = tiles[blockIdx.x];
  const LoraTermArgs* const term = terms + tile.term;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t k_begin = int64_t{blockIdx.y} * kShrinkSplit;
  const int64_t k_end = min(x.stride, k_begin + kShrinkSplit);
  const int steps = static_cast<int>((k_end - k_begin + kStageK - 1) / kStageK);

  // This thread copies 16 bytes of one row of A and of x per stage.
  Bf16* const stages = DynamicShared<Bf16>();
  const int copy_row = threadIdx.x / (kStageK / 8);
  const int copy_col = threadIdx.x % (kStageK / 8) * 8;
  const Bf16* a_row = nullptr;
  if (tile.rank_begin + copy_row < term->rank_sum) {
    const RankRow r = FindRankRow(*term, tile.rank_begin + copy_row);
    a_row =
        term->parts[r.part].a + int64_t{r.row} * term->parts[r.part].a_stride;
  }
  const Bf16* const x_row =
      copy_row < tile.row_count
          ? x.data + (int64_t{tile.row_begin} + copy_row) * x.stride
          : nullptr;
  const auto load_stage = [&](int step) {
    Bf16* const to =
        stages + step % kStages * 2 * kMatrix + copy_row * kPitch + copy_col;
    const int64_t k = k_begin + step * kStageK + copy_col;
    const bool has_a = a_row != nullptr && k < k_end;
    const bool has_x = x_row != nullptr && k < k_end;
    CpAsync16(to, has_a ? a_row + k : x.data, has_a ? 16 : 0);
    CpAsync16(to + kMatrix, has_x ? x_row + k : x.data, has_x ? 16 : 0);
  };

#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) load_stage(s);
    CpAsyncCommit();
  }
  float acc[2][4] = {};
  for (int step = 0; step < steps; ++step) {
    CpAsyncWait<kStages - 2>();
    __syncthreads();
    if (step + kStages - 1 < steps) load_stage(step + kStages - 1);
    CpAsyncCommit();
    const Bf16* const a_s = stages + step % kStages * 2 * kMatrix + warp * 16;
    const Bf16* const x_s = a_s + kMatrix;
    uint32_t a[4], b[4];
    LdMatrixX4(a, a_s + lane % 16 * kPitch + lane / 16 * 8);
    LdMatrixX4(b, x_s + (lane % 8 + lane / 16 * 8) * kPitch + lane / 8 % 2 * 8);
    MmaM16N8K16(acc[0], a, b[0], b[1]);
    if (tile.row_count > 8) MmaM16N8K16(acc[1], a, b[2], b[3]);
  }
  CpAsyncWait<0>();
  __syncthreads();  // the stages become [warp][row of x][rank row] sums

  float* const sums = DynamicShared<float>();
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = lane / 4 + i / 2 * 8, row = n * 8 + lane % 4 * 2 + i % 2;
      sums[(warp * 16 + row) * kSumPitch + r] = acc[n][i];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 16 * 16; i += kThreads) {
    const int row = i / 16, rank_row = tile.rank_begin + i % 16;
    if (row >= tile.row_count || rank_row >= term->rank_sum) continue;
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      sum += sums[(w * 16 + row) * kSumPitch + i % 16];
    }
    const RankRow r = FindRankRow(*term, rank_row);
    const LoraTermArgs::Part& part = term->parts[r.part];
    const int64_t segment_row = tile.row_begin + row - term->row_begin;
    Store(partials + int64_t{blockIdx.y} * v_size + part.v_begin +
              segment_row * part.rank + r.row,
          sum);
  }
}

__global__ void __launch_bounds__(kThreads)
    LoraReduceKernel(const float* partials, int64_t pieces, int64_t v_size,
                     float* v) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= v_size) return;
  float sum = 0.0f;
  for (int64_t p = 0; p < pieces; ++p) {
    sum += LoadReadOnly(partials + p * v_size + i);
  }
  Store(v + i, sum);
}

}  // namespace

cudaError_t LoraShrink(Rows<const Bf16> x, const LoraTermArgs* terms,
                       const ShrinkTile* tiles, int64_t tile_count,
                       float* partials, int64_t v_size, cudaStream_t stream) {
  if (tile_count == 0) return cudaSuccess;
  const int64_t pieces = (x.cols + kShrinkSplit - 1) / kShrinkSplit;
  return Launch(
      LoraShrinkKernel,
      {dim3(static_cast<unsigned>(tile_count), static_cast<unsigned>(pieces)),
       dim3(kThreads), kSharedBytes, stream},
      x, terms, tiles, partials, v_size);
}

cudaError_t LoraReduce(const float* partials, int64_t pieces, int64_t v_size,
                       float* v, cudaStream_t stream) {
  if (v_size == 0) return cudaSuccess;
  return Launch(
      LoraReduceKernel,
      {dim3(static_cast<unsigned>((v_size + kThreads - 1) / kThreads)),
       dim3(kThreads), 0, stream},
      partials, pieces, v_size, v);
}

}  // namespace lorikeet::cuda
