// Grouped LoRA expand: y += scale * (v B^T), the terms of a segment in order.
//
// Block = (128 outputs of one linear of the group, up to 16 rows), 4 warps of
// 32 outputs each. Outputs lie on M of the mma, rows on N, the rank on K in
// steps of 64 columns of B. v is the sum of the shrink's pieces in order, split
// into two bf16 (high and low half) and multiplied by both, so that it loses
// nothing that matters. B comes by cp.async into two places by turns; y stays
// in registers over all terms. Reads 2 bytes per element of B once and moves 8
// bytes per element of y; limit: DRAM.

#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace lorikeet::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kCols = 128;   // outputs of a block
constexpr int kStageK = 64;  // rank columns of a step
constexpr int kPitch = kStageK + 8;
constexpr int kBPlace = kCols * kPitch;  // elements
constexpr int kVPlace = 16 * kPitch;
constexpr int kPlace = kBPlace + 2 * kVPlace;  // B, v high, v low
constexpr size_t kSharedBytes = size_t{2} * kPlace * sizeof(Bf16);

// A step: rank columns [k, k + 64) of one term.
struct Step {
  int term;
  int k;
};

__global__ void __launch_bounds__(kThreads) LoraExpandKernel(ExpandArgs args) {
  const ExpandTile tile = args.tiles[blockIdx.y];
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  int part = 0;
  int64_t col_tile = blockIdx.x;
#pragma unroll
  for (int p = 0; p + 1 < kMaxLoraParts; ++p) {
    const int64_t tiles_of_part = (args.y[p].cols + kCols - 1) / kCols;
    if (part == p && col_tile >= tiles_of_part) {
      col_tile -= tiles_of_part;
      part = p + 1;
    }
  }
  const Rows<float> y = args.y[part];
  const int64_t col_begin = col_tile * kCols;
  const int last_term = tile.first_term + tile.term_count;
  const auto part_of = [&](int term) -> const LoraTermArgs::Part& {
    return args.terms[term].parts[part];
  };
  // The first step at or after `term` that has something to do.
  const auto find_step = [&](int term) {
    while (term < last_term && part_of(term).rank == 0) ++term;
    return Step{term, 0};
  };
  const auto next_step = [&](Step s) {
    if (s.k + kStageK < part_of(s.term).rank)
      return Step{s.term, s.k + kStageK};
    return find_step(s.term + 1);
  };

  Bf16* const places = DynamicShared<Bf16>();
  const auto load_b = [&](Step s, Bf16* place) {
    const LoraTermArgs::Part& p = part_of(s.term);
    for (int i = threadIdx.x; i < kCols * (kStageK / 8); i += kThreads) {
      const int row = i / (kStageK / 8), col = i % (kStageK / 8) * 8;
      const bool has = col_begin + row < y.cols && s.k + col < p.b_stride;
      CpAsync16(place + row * kPitch + col,
                has ? p.b + (col_begin + row) * p.b_stride + s.k + col : p.b,
                has ? 16 : 0);
    }
  };
  const auto load_v = [&](Step s, Bf16* place) {
    const LoraTermArgs::Part& p = part_of(s.term);
    const int64_t segment_row = tile.row_begin - args.terms[s.term].row_begin;
    for (int i = threadIdx.x; i < 16 * kStageK; i += kThreads) {
      const int row = i / kStageK, r = i % kStageK;
      float v = 0.0f;
      if (row < tile.row_count && s.k + r < p.rank) {
        const float* const from =
            args.partials + p.v_begin + (segment_row + row) * p.rank + s.k + r;
        for (int piece = 0; piece < args.pieces; ++piece) {
          v += LoadReadOnly(from + piece * args.v_size);
        }
      }
      const Bf16 high = __float2bfloat16(v);
      Store(place + kBPlace + row * kPitch + r, high);
      Store(place + kBPlace + kVPlace + row * kPitch + r,
            __float2bfloat16(v - __bfloat162float(high)));
    }
  };

  // y of this thread: [16 outputs twice][8 rows twice][4].
  const auto at = [&](int m, int n, int i) -> float* {
    const int row = n * 8 + lane % 4 * 2 + i % 2;
    const int64_t col = col_begin + warp * 32 + m * 16 + lane / 4 + i / 2 * 8;
    if (row >= tile.row_count || col >= y.cols) return nullptr;
    return y.data + (int64_t{tile.row_begin} + row) * y.stride + col;
  };
  Step step = find_step(tile.first_term);
  if (step.term >= last_term) return;
  float sums[2][2][4];
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* const p = at(m, n, i);
        sums[m][n][i] = p != nullptr ? Load(p) : 0.0f;
      }
    }
  }

  load_b(step, places);
  CpAsyncCommit();
  load_v(step, places);
  float acc[2][2][4] = {};
  for (int turn = 0; step.term < last_term; ++turn) {
    Bf16* const place = places + turn % 2 * kPlace;
    const Step next = next_step(step);
    if (next.term < last_term) {
      Bf16* const other = places + (turn + 1) % 2 * kPlace;
      load_b(next, other);
      CpAsyncCommit();
      load_v(next, other);
    } else {
      CpAsyncCommit();
    }
    CpAsyncWait<1>();
    __syncthreads();
    const int k_end = min(kStageK, part_of(step.term).rank - step.k);
    for (int k = 0; k < k_end; k += 16) {
      uint32_t high[4], low[4];
      const int v_at =
          (lane % 8 + lane / 16 * 8) * kPitch + k + lane / 8 % 2 * 8;
      LdMatrixX4(high, place + kBPlace + v_at);
      LdMatrixX4(low, place + kBPlace + kVPlace + v_at);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        uint32_t b[4];
        LdMatrixX4(b, place + (warp * 32 + m * 16 + lane % 16) * kPitch + k +
                          lane / 16 * 8);
        MmaM16N8K16(acc[m][0], b, low[0], low[1]);
        MmaM16N8K16(acc[m][0], b, high[0], high[1]);
        if (tile.row_count > 8) {
          MmaM16N8K16(acc[m][1], b, low[2], low[3]);
          MmaM16N8K16(acc[m][1], b, high[2], high[3]);
        }
      }
    }
    if (next.term != step.term) {  // the term is complete
      const float scale = part_of(step.term).scale;
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int n = 0; n < 2; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            sums[m][n][i] += scale * acc[m][n][i];
            acc[m][n][i] = 0.0f;
          }
        }
      }
    }
    __syncthreads();  // the place is filled again in the turn after next
    step = next;
  }
  CpAsyncWait<0>();
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float* const p = at(m, n, i);
        if (p != nullptr) Store(p, sums[m][n][i]);
      }
    }
  }
}

}  // namespace

cudaError_t LoraExpand(const ExpandArgs& args, cudaStream_t stream) {
  if (args.tile_count == 0) return cudaSuccess;
  int64_t col_tiles = 0;
  for (int p = 0; p < args.part_count; ++p) {
    col_tiles += (args.y[p].cols + kCols - 1) / kCols;
  }
  return Launch(LoraExpandKernel,
                {dim3(static_cast<unsigned>(col_tiles),
                      static_cast<unsigned>(args.tile_count)),
                 dim3(kThreads), kSharedBytes, stream},
                args);
}

}  // namespace lorikeet::cuda
