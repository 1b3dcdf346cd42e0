// What the kernels of attention in training share: tiles of rows in shared
// memory, and products of such tiles.
//
// 256 threads are 16 x 16: thread (ty, tx) has rows ty + 16 i of its own tile
// against rows tx + 16 j of another, or columns tx + 16 c. In shared memory a
// row is an odd number of words, so that neighbouring rows are in other banks.

#ifndef LORIKEET_KERNELS_CUDA_TRAIN_ATTENTION_TILE_H_
#define LORIKEET_KERNELS_CUDA_TRAIN_ATTENTION_TILE_H_

#include "kernels/cuda/launch.h"
#include "kernels/cuda/train/kernels.h"
#include "kernels/cuda/vector.h"

namespace lorikeet::cuda {

inline constexpr int kSide = 16;
inline constexpr int kAttentionThreads = kSide * kSide;

// The largest head that a kernel's registers are for, and what follows.
template <int kHeadDim>
struct AttentionShape {
  static constexpr int kRows = kHeadDim <= 128 ? 32 : 16;  // of a tile
  static constexpr int kOwn = kRows / kSide;               // rows of a thread
  static constexpr int kColumns = kHeadDim / kSide;        // and columns
  // Two rows of a warp lie half of the banks apart.
  static constexpr int kScorePitch = kRows == 32 ? 48 : 16;
  static constexpr int kPitch = kHeadDim + 1;
  static constexpr int kTile = kRows * kPitch;         // floats
  static constexpr int kScores = kRows * kScorePitch;  // floats
};

// The rows of a tile of a sequence, one head of them, in shared memory; zeros
// beyond the sequence.
template <int kHeadDim>
DEVICE void LoadTile(const Rows<const float>& m, int64_t head, int dim,
                     int64_t row, int64_t end, float* to) {
  using S = AttentionShape<kHeadDim>;
  const float* const from = m.data + head * dim;
  // A warp takes a row, lane by lane.
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  for (int r = warp; r < S::kRows; r += kAttentionThreads / kWarpSize) {
    for (int c = lane; c < dim; c += kWarpSize) {
      to[r * S::kPitch + c] =
          row + r < end ? LoadReadOnly(from + (row + r) * m.stride + c) : 0.0f;
    }
  }
}

// dots[i][j] = a[ty + 16 i] * b[tx + 16 j].
template <int kHeadDim>
DEVICE void DotTiles(const float* a, const float* b, int dim,
                     float (&dots)[AttentionShape<kHeadDim>::kOwn]
                                  [AttentionShape<kHeadDim>::kOwn]) {
  using S = AttentionShape<kHeadDim>;
  const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
#pragma unroll
  for (int i = 0; i < S::kOwn; ++i) {
#pragma unroll
    for (int j = 0; j < S::kOwn; ++j) dots[i][j] = 0.0f;
  }
#pragma unroll 4
  for (int c = 0; c < dim; ++c) {
    float y[S::kOwn];
#pragma unroll
    for (int j = 0; j < S::kOwn; ++j) {
      y[j] = b[(tx + kSide * j) * S::kPitch + c];
    }
#pragma unroll
    for (int i = 0; i < S::kOwn; ++i) {
      const float x = a[(ty + kSide * i) * S::kPitch + c];
#pragma unroll
      for (int j = 0; j < S::kOwn; ++j) {
        dots[i][j] = fmaf(x, y[j], dots[i][j]);
      }
    }
  }
}

// sums[i][c] += sum_r scores[ty + 16 i][r] * b[r][tx + 16 c].
template <int kHeadDim>
DEVICE void AddProduct(const float* scores, const float* b, int dim,
                       float (&sums)[AttentionShape<kHeadDim>::kOwn]
                                    [AttentionShape<kHeadDim>::kColumns]) {
  using S = AttentionShape<kHeadDim>;
  const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
  for (int r = 0; r < S::kRows; ++r) {
    float x[S::kOwn];
#pragma unroll
    for (int i = 0; i < S::kOwn; ++i) {
      x[i] = scores[(ty + kSide * i) * S::kScorePitch + r];
    }
#pragma unroll
    for (int c = 0; c < S::kColumns; ++c) {
      if (tx + kSide * c >= dim) continue;
      const float y = b[r * S::kPitch + tx + kSide * c];
#pragma unroll
      for (int i = 0; i < S::kOwn; ++i) sums[i][c] = fmaf(x[i], y, sums[i][c]);
    }
  }
}

// The thread's elements of a tile of one head, to rows before `end`.
template <int kHeadDim>
DEVICE void StoreTile(const float (&values)[AttentionShape<kHeadDim>::kOwn]
                                           [AttentionShape<kHeadDim>::kColumns],
                      int64_t head, int dim, int64_t row, int64_t end,
                      const Rows<float>& to) {
  using S = AttentionShape<kHeadDim>;
  const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
#pragma unroll
  for (int i = 0; i < S::kOwn; ++i) {
    const int64_t r = row + ty + kSide * i;
    if (r >= end) continue;
#pragma unroll
    for (int c = 0; c < S::kColumns; ++c) {
      if (tx + kSide * c >= dim) continue;
      Store(to.data + r * to.stride + head * dim + tx + kSide * c,
            values[i][c]);
    }
  }
}

// Whether the row of a query sees that of a key, both inside of the sequence.
DEVICE bool Sees(int64_t query, int64_t key, int64_t end, int32_t window) {
  return query < end && key <= query && (window == 0 || key > query - window);
}

// Where the first tile of keys begins that a tile of queries sees; tiles are
// counted from the sequence's begin.
DEVICE int64_t FirstKey(const SequenceTile& queries, int32_t window, int rows) {
  const int64_t seen = queries.row - window + 1;
  if (window == 0 || seen <= queries.begin) return queries.begin;
  return queries.begin + (seen - queries.begin) / rows * rows;
}

// Launches `kernel` for all tiles and heads.
inline cudaError_t LaunchAttention(void (*kernel)(TrainAttentionArgs),
                                   int32_t heads, size_t shared_floats,
                                   const TrainAttentionArgs& args,
                                   cudaStream_t stream) {
  const size_t bytes = shared_floats * sizeof(float);
  const cudaError_t error = cudaFuncSetAttribute(
      reinterpret_cast<const void*>(kernel),
      cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) return error;
  return Launch(kernel,
                {dim3(static_cast<unsigned>(args.tile_count),
                      static_cast<unsigned>(heads)),
                 dim3(kAttentionThreads), bytes, stream},
                args);
}

// Calls fn<kHeadDim>() of the smallest shape for the heads.
template <typename Fn>
cudaError_t WithHeadDim(int64_t head_dim, const Fn& fn) {
  if (head_dim <= 64) return fn.template operator()<64>();
  if (head_dim <= 128) return fn.template operator()<128>();
  return fn.template operator()<256>();
}

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_TRAIN_ATTENTION_TILE_H_
