// Causal attention inside of packed sequences in f32, with what the way back
// wants to know.
//
// Block = (tile of query rows, head), 256 threads. Keys and values come tile by
// tile; scores, their maximum and their sum go on row by row (Milakov and
// Gimelshein 2018), 16 lanes to a row. Reads K and V once per tile of queries;
// limit: the f32 units and shared memory (no tensor cores: see product.cu).

#include "kernels/cuda/train/attention_tile.h"

namespace lorikeet::cuda {
namespace {

// Over the 16 lanes of a row.
template <typename Op>
DEVICE float RowReduce(float v, const Op& op) {
#pragma unroll
  for (int offset = kSide / 2; offset > 0; offset /= 2) {
    v = op(v, __shfl_xor_sync(kFullWarp, v, offset));
  }
  return v;
}

template <int kHeadDim>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    TrainAttentionKernel(TrainAttentionArgs args) {
  using S = AttentionShape<kHeadDim>;
  const SequenceTile tile = args.tiles[blockIdx.x];
  const int64_t head = blockIdx.y;
  const int64_t kv_head = head / (args.heads / args.kv_heads);
  const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
  const int dim = args.head_dim;
  float* const q = DynamicShared<float>();
  float* const k = q + S::kTile;
  float* const v = k + S::kTile;
  float* const p = v + S::kTile;
  LoadTile<kHeadDim>(args.q, head, dim, tile.row, tile.end, q);

  float out[S::kOwn][S::kColumns] = {};
  float max[S::kOwn], sum[S::kOwn];
#pragma unroll
  for (int i = 0; i < S::kOwn; ++i) {
    max[i] = -INFINITY;
    sum[i] = 0.0f;
  }
  const int64_t last =
      tile.row + S::kRows < tile.end ? tile.row + S::kRows : tile.end;
  const int64_t first = FirstKey(tile, args.window, S::kRows);
  for (int64_t key = first; key < last; key += S::kRows) {
    __syncthreads();  // nobody reads the tiles before
    LoadTile<kHeadDim>(args.k, kv_head, dim, key, tile.end, k);
    LoadTile<kHeadDim>(args.v, kv_head, dim, key, tile.end, v);
    __syncthreads();
    float scores[S::kOwn][S::kOwn];
    DotTiles<kHeadDim>(q, k, dim, scores);
#pragma unroll
    for (int i = 0; i < S::kOwn; ++i) {
      const int64_t query = tile.row + ty + kSide * i;
      float largest = max[i];
#pragma unroll
      for (int j = 0; j < S::kOwn; ++j) {
        const bool sees =
            Sees(query, key + tx + kSide * j, tile.end, args.window);
        scores[i][j] = sees ? args.scale * scores[i][j] : -INFINITY;
        largest = fmaxf(largest, scores[i][j]);
      }
      largest =
          RowReduce(largest, [](float a, float b) { return fmaxf(a, b); });
      // A row may see nothing of a tile, or be beyond the sequence.
      const float base = largest == -INFINITY ? 0.0f : largest;
      const float keep = expf(max[i] - base);
      float added = 0.0f;
#pragma unroll
      for (int j = 0; j < S::kOwn; ++j) {
        const float e = expf(scores[i][j] - base);
        p[(ty + kSide * i) * S::kScorePitch + tx + kSide * j] = e;
        added += e;
      }
      added = RowReduce(added, [](float a, float b) { return a + b; });
      sum[i] = fmaf(sum[i], keep, added);
      max[i] = largest;
#pragma unroll
      for (int c = 0; c < S::kColumns; ++c) out[i][c] *= keep;
    }
    __syncthreads();
    AddProduct<kHeadDim>(p, v, dim, out);
  }
#pragma unroll
  for (int i = 0; i < S::kOwn; ++i) {
    const int64_t row = tile.row + ty + kSide * i;
    if (row >= tile.end) continue;
#pragma unroll
    for (int c = 0; c < S::kColumns; ++c) out[i][c] /= sum[i];
    if (tx == 0) {
      Store(args.lse.data + row * args.lse.stride + head,
            max[i] + logf(sum[i]));
    }
  }
  StoreTile<kHeadDim>(out, head, dim, tile.row, tile.end, args.y);
}

}  // namespace

int32_t TrainAttentionTileRows(int64_t head_dim) {
  return head_dim <= 128 ? AttentionShape<128>::kRows
                         : AttentionShape<256>::kRows;
}

cudaError_t TrainAttention(const TrainAttentionArgs& args,
                           cudaStream_t stream) {
  if (args.tile_count == 0) return cudaSuccess;
  return WithHeadDim(args.head_dim, [&]<int kHeadDim>() {
    using S = AttentionShape<kHeadDim>;
    return LaunchAttention(TrainAttentionKernel<kHeadDim>, args.heads,
                           3 * S::kTile + S::kScores, args, stream);
  });
}

}  // namespace lorikeet::cuda
