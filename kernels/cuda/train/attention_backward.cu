// The gradients of attention.cu. With p = exp(scale q k - lse) again from what
// the forward pass left:
//
//   along = dy y, per row and head
//   ds = scale p (dy v - along)
//   dq = ds k; dk = ds^T q; dv = p^T dy
//
// One kernel per side (Dao 2023): a block has a tile of queries and goes over
// the keys that it sees for dq, or a tile of keys and goes over the heads of
// its group and the queries that see it for dk and dv. So each sum is one chain
// in one thread and there are no atomics. Limit: as attention.cu.

#include "kernels/cuda/train/attention_tile.h"

namespace lorikeet::cuda {
namespace {

constexpr int kAlongThreads = 128;

// Warp = (row, head).
__global__ void __launch_bounds__(kAlongThreads)
    AlongKernel(TrainAttentionArgs args) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t row = blockIdx.x;
  const int dim = args.head_dim;
  for (int64_t head = warp; head < args.heads;
       head += kAlongThreads / kWarpSize) {
    const float* const dy = args.dy.data + row * args.dy.stride + head * dim;
    const float* const y = args.y.data + row * args.y.stride + head * dim;
    float sum = 0.0f;
    for (int c = lane; c < dim; c += kWarpSize) {
      sum = fmaf(LoadReadOnly(dy + c), LoadReadOnly(y + c), sum);
    }
    sum = WarpSum(sum);
    if (lane == 0) Store(args.along.data + row * args.along.stride + head, sum);
  }
}

// What the forward pass left of the rows of a tile of queries, one head.
struct QueryRows {
  float* lse;
  float* along;

  DEVICE void Load(const TrainAttentionArgs& args, int64_t head, int64_t row,
                   int64_t end, int rows) const {
    const int r = threadIdx.x;
    if (r >= rows) return;
    const bool has = row + r < end;
    lse[r] =
        has ? LoadReadOnly(args.lse.data + (row + r) * args.lse.stride + head)
            : 0.0f;
    along[r] = has ? LoadReadOnly(args.along.data +
                                  (row + r) * args.along.stride + head)
                   : 0.0f;
  }
};

// p and ds of query `query` of a tile and a key, from q k and dy v.
DEVICE void Gradients(const TrainAttentionArgs& args, const QueryRows& rows,
                      int query, bool sees, float dot, float dy_v, float* p,
                      float* ds) {
  *p = sees ? expf(args.scale * dot - rows.lse[query]) : 0.0f;
  *ds = sees ? args.scale * *p * (dy_v - rows.along[query]) : 0.0f;
}

template <int kHeadDim>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    QueryGradientKernel(TrainAttentionArgs args) {
  using S = AttentionShape<kHeadDim>;
  const SequenceTile tile = args.tiles[blockIdx.x];
  const int64_t head = blockIdx.y;
  const int64_t kv_head = head / (args.heads / args.kv_heads);
  const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
  const int dim = args.head_dim;
  float* const q = DynamicShared<float>();
  float* const dy = q + S::kTile;
  float* const k = dy + S::kTile;
  float* const v = k + S::kTile;
  float* const ds = v + S::kTile;
  const QueryRows rows{ds + S::kScores, ds + S::kScores + S::kRows};
  rows.Load(args, head, tile.row, tile.end, S::kRows);
  LoadTile<kHeadDim>(args.q, head, dim, tile.row, tile.end, q);
  LoadTile<kHeadDim>(args.dy, head, dim, tile.row, tile.end, dy);
  float dq[S::kOwn][S::kColumns] = {};
  const int64_t last =
      tile.row + S::kRows < tile.end ? tile.row + S::kRows : tile.end;
  const int64_t first = FirstKey(tile, args.window, S::kRows);
  for (int64_t key = first; key < last; key += S::kRows) {
    __syncthreads();  // nobody reads the tiles before
    LoadTile<kHeadDim>(args.k, kv_head, dim, key, tile.end, k);
    LoadTile<kHeadDim>(args.v, kv_head, dim, key, tile.end, v);
    __syncthreads();
    float dots[S::kOwn][S::kOwn], dy_v[S::kOwn][S::kOwn];
    DotTiles<kHeadDim>(q, k, dim, dots);
    DotTiles<kHeadDim>(dy, v, dim, dy_v);
#pragma unroll
    for (int i = 0; i < S::kOwn; ++i) {
#pragma unroll
      for (int j = 0; j < S::kOwn; ++j) {
        const int query = ty + kSide * i, other = tx + kSide * j;
        float p;
        Gradients(args, rows, query,
                  Sees(tile.row + query, key + other, tile.end, args.window),
                  dots[i][j], dy_v[i][j], &p,
                  ds + query * S::kScorePitch + other);
      }
    }
    __syncthreads();
    AddProduct<kHeadDim>(ds, k, dim, dq);
  }
  StoreTile<kHeadDim>(dq, head, dim, tile.row, tile.end, args.dq);
}

template <int kHeadDim>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    KeyGradientKernel(TrainAttentionArgs args) {
  using S = AttentionShape<kHeadDim>;
  const SequenceTile tile = args.tiles[blockIdx.x];
  const int64_t kv_head = blockIdx.y;
  const int64_t group = args.heads / args.kv_heads;
  const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
  const int dim = args.head_dim;
  float* const k = DynamicShared<float>();
  float* const v = k + S::kTile;
  float* const q = v + S::kTile;
  float* const dy = q + S::kTile;
  float* const p = dy + S::kTile;
  float* const ds = p + S::kScores;
  const QueryRows rows{ds + S::kScores, ds + S::kScores + S::kRows};
  LoadTile<kHeadDim>(args.k, kv_head, dim, tile.row, tile.end, k);
  LoadTile<kHeadDim>(args.v, kv_head, dim, tile.row, tile.end, v);
  float dk[S::kOwn][S::kColumns] = {}, dv[S::kOwn][S::kColumns] = {};
  int64_t last = tile.end;  // of the queries
  if (args.window > 0 && tile.row + S::kRows - 1 + args.window < last) {
    last = tile.row + S::kRows - 1 + args.window;
  }
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t query = tile.row; query < last; query += S::kRows) {
      __syncthreads();  // nobody reads the tiles before
      rows.Load(args, head, query, tile.end, S::kRows);
      LoadTile<kHeadDim>(args.q, head, dim, query, tile.end, q);
      LoadTile<kHeadDim>(args.dy, head, dim, query, tile.end, dy);
      __syncthreads();
      float dots[S::kOwn][S::kOwn], dy_v[S::kOwn][S::kOwn];
      DotTiles<kHeadDim>(k, q, dim, dots);
      DotTiles<kHeadDim>(v, dy, dim, dy_v);
#pragma unroll
      for (int i = 0; i < S::kOwn; ++i) {
#pragma unroll
        for (int j = 0; j < S::kOwn; ++j) {
          const int key = ty + kSide * i, other = tx + kSide * j;
          const int at = key * S::kScorePitch + other;
          Gradients(args, rows, other,
                    Sees(query + other, tile.row + key, tile.end, args.window),
                    dots[i][j], dy_v[i][j], p + at, ds + at);
        }
      }
      __syncthreads();
      AddProduct<kHeadDim>(p, dy, dim, dv);
      AddProduct<kHeadDim>(ds, q, dim, dk);
    }
  }
  StoreTile<kHeadDim>(dk, kv_head, dim, tile.row, tile.end, args.dk);
  StoreTile<kHeadDim>(dv, kv_head, dim, tile.row, tile.end, args.dv);
}

}  // namespace

cudaError_t TrainAttentionBackward(const TrainAttentionArgs& args,
                                   cudaStream_t stream) {
  if (args.tile_count == 0) return cudaSuccess;
  cudaError_t error = Launch(AlongKernel,
                             {dim3(static_cast<unsigned>(args.q.rows)),
                              dim3(kAlongThreads), 0, stream},
                             args);
  if (error != cudaSuccess) return error;
  return WithHeadDim(args.head_dim, [&]<int kHeadDim>() {
    using S = AttentionShape<kHeadDim>;
    error =
        LaunchAttention(QueryGradientKernel<kHeadDim>, args.heads,
                        4 * S::kTile + S::kScores + 2 * S::kRows, args, stream);
    if (error != cudaSuccess) return error;
    return LaunchAttention(KeyGradientKernel<kHeadDim>, args.kv_heads,
                           4 * S::kTile + 2 * S::kScores + 2 * S::kRows, args,
                           stream);
  });
}

}  // namespace lorikeet::cuda
