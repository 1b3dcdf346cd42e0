// Paged attention for prefill and decode alike, on tensor cores.
//
// Block = (tile of query rows x 256 keys, up to 16 query heads of a kv head), 4
// warps. The 16 rows of the mma are (query row, head) pairs: in decode the
// heads of the group, in prefill several rows. Each warp takes 64 of the keys,
// 16 at a time, with an online softmax of its own: S = Q K^T, P to bf16 in
// registers, O
// += P V. K and V of the next 16 keys are on their way (cp.async, two places)
// while these are multiplied. Keys that no row of the tile may see are not
// loaded. At the end the warps' results are merged in order, and the splits'
// by MergeAttention, in order as well: a row's bits depend on nothing but its
// own query and keys.
//
// Reads 4 * head_dim bytes per key and kv head once per tile; limit: DRAM in
// decode, mma in prefill.

#include <cmath>

#include "kernels/cuda/attention_partial.h"
#include "kernels/cuda/launch.h"

namespace lorikeet::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kRows = 16;      // of the mma
constexpr int kStepKeys = 16;  // of a warp's step
constexpr int kWarpKeys = static_cast<int>(kSplitKeys) / kWarps;
constexpr int kPlaces = 2;

DEVICE float RoundToBf16(float v) {
  return __bfloat162float(__float2bfloat16(v));
}

template <int kDim>
struct Layout {
  static constexpr int kPitch = kDim + 8;  // elements; 16 bytes of padding
  static constexpr int kTile = kStepKeys * kPitch;
  static constexpr int kWarpElements = kPlaces * 2 * kTile;
  static constexpr size_t kCacheBytes =
      size_t{kWarps} * kWarpElements * sizeof(Bf16);
  // Q before the keys, and the warps' results after them, in the same place.
  // Floats per row: O, sum, maximum; 8 banks from row to row.
  static constexpr int kResult = kDim + 8;
  static_assert(kCacheBytes >=
                size_t{kWarps} * kRows * kResult * sizeof(float));
  static constexpr size_t kSharedBytes = kCacheBytes;
};

// A warp's running softmax of its rows g and g + 8.
template <int kDim>
struct Running {
  float o[kDim / 8][4];
  float largest[2];
  float total[2];  // of this lane's keys
};

template <int kDim>
__global__ void __launch_bounds__(kThreads)
    AttentionKernel(AttentionArgs args) {
  using L = Layout<kDim>;
  const AttentionTile tile = args.tiles[blockIdx.x];
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int group = args.heads / args.kv.kv_heads;
  const int heads_per_tile = min(group, kRows);
  const int chunks = (group + kRows - 1) / kRows;
  const int kv_head = blockIdx.y / chunks;
  const int head_begin = blockIdx.y % chunks * kRows;  // within the group
  const int head_count = min(heads_per_tile, group - head_begin);
  const int dim = args.kv.head_dim;
  const int last = tile.position + tile.row_count - 1;
  // Row m of the mma: which row of q (or none) and which head.
  const auto row_of = [&](int m) { return m / heads_per_tile; };
  const auto head_of = [&](int m) {
    return kv_head * group + head_begin + m % heads_per_tile;
  };
  const auto is_used = [&](int m) {
    return row_of(m) < tile.row_count && m % heads_per_tile < head_count;
  };

  // Q as fragments of A, through shared memory.
  Bf16* const shared = DynamicShared<Bf16>();
  for (int i = threadIdx.x; i < kRows * kDim; i += kThreads) {
    const int m = i / kDim, d = i % kDim;
    float value = 0.0f;
    if (is_used(m) && d < dim) {
      value = LoadReadOnly(
          args.q.data + (int64_t{tile.row_begin} + row_of(m)) * args.q.stride +
          int64_t{head_of(m)} * dim + d);
    }
    StoreF32(shared + m * L::kPitch + d, value);
  }
  __syncthreads();
  uint32_t q[kDim / 16][4];
#pragma unroll
  for (int i = 0; i < kDim / 16; ++i) {
    LdMatrixX4(q[i], shared + lane % 16 * L::kPitch + i * 16 + lane / 16 * 8);
  }
  __syncthreads();

  Bf16* const mine = shared + warp * L::kWarpElements;
  const int key_begin = tile.key_begin + warp * kWarpKeys;
  // No row sees keys beyond `last`, nor below the first row's window.
  const int key_end = min(key_begin + kWarpKeys, last + 1);
  const int first_seen =
      args.window > 0 ? max(0, tile.position - args.window + 1) : 0;
  const int first_step = max(0, first_seen - key_begin) / kStepKeys;
  const int steps = (key_end - key_begin + kStepKeys - 1) / kStepKeys;
  const auto load_step = [&](int step) {
    Bf16* const place = mine + step % kPlaces * 2 * L::kTile;
    for (int i = lane; i < kStepKeys * (kDim / 8); i += kWarpSize) {
      const int row = i / (kDim / 8), d = i % (kDim / 8) * 8;
      const int key = key_begin + step * kStepKeys + row;
      const bool has = key < key_end && key >= first_seen && d < dim;
      const int64_t from = has ? KeyOffset(args, tile, kv_head, key) + d : 0;
      Bf16* const to = place + row * L::kPitch + d;
      CpAsync16(to, static_cast<const Bf16*>(args.kv.k) + from, has ? 16 : 0);
      CpAsync16(to + L::kTile, static_cast<const Bf16*>(args.kv.v) + from,
                has ? 16 : 0);
    }
  };

  Running<kDim> r;
#pragma unroll
  for (int i = 0; i < kDim / 8; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) r.o[i][j] = 0.0f;
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    r.largest[h] = kLowestScore;
    r.total[h] = 0.0f;
  }
  const int positions[2] = {tile.position + row_of(lane / 4),
                            tile.position + row_of(lane / 4 + 8)};
  const bool used[2] = {is_used(lane / 4), is_used(lane / 4 + 8)};

  if (first_step < steps) load_step(first_step);
  CpAsyncCommit();
  for (int step = first_step; step < steps; ++step) {
    if (step + 1 < steps) load_step(step + 1);
    CpAsyncCommit();
    CpAsyncWait<1>();
    __syncwarp();
    const Bf16* const k_s = mine + step % kPlaces * 2 * L::kTile;
    const Bf16* const v_s = k_s + L::kTile;
    float s[2][4] = {};
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) {
      uint32_t k[4];
      LdMatrixX4(k, k_s + (lane % 8 + lane / 16 * 8) * L::kPitch + i * 16 +
                        lane / 8 % 2 * 8);
      MmaM16N8K16(s[0], q[i], k[0], k[1]);
      MmaM16N8K16(s[1], q[i], k[2], k[3]);
    }
    // Element j of half h: row lane / 4 + 8 h, key n * 8 + lane % 4 * 2 + j.
    float p[2][4], shrink[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float largest = r.largest[h];
      bool seen[2][2];
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int key =
              key_begin + step * kStepKeys + n * 8 + lane % 4 * 2 + j;
          seen[n][j] = used[h] && IsSeen(args, key, positions[h]);
          float& score = s[n][h * 2 + j];
          score *= args.scale;
          if (seen[n][j]) largest = fmaxf(largest, score);
        }
      }
      largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, 2));
      shrink[h] = __expf(r.largest[h] - largest);
      r.largest[h] = largest;
      r.total[h] *= shrink[h];
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          // As the mma will see it, so that the weights' sum is theirs.
          const float weight =
              seen[n][j] ? RoundToBf16(__expf(s[n][h * 2 + j] - largest))
                         : 0.0f;
          p[n][h * 2 + j] = weight;
          r.total[h] += weight;
        }
      }
    }
    const uint32_t a[4] = {
        PackBf16(p[0][0], p[0][1]), PackBf16(p[0][2], p[0][3]),
        PackBf16(p[1][0], p[1][1]), PackBf16(p[1][2], p[1][3])};
#pragma unroll
    for (int i = 0; i < kDim / 16; ++i) {
      uint32_t v[4];
      LdMatrixX4Transposed(v, v_s + (lane % 8 + lane / 8 % 2 * 8) * L::kPitch +
                                  i * 16 + lane / 16 * 8);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        float(&o)[4] = r.o[i * 2 + n];
#pragma unroll
        for (int j = 0; j < 4; ++j) o[j] *= shrink[j / 2];
        MmaM16N8K16(o, a, v[n * 2], v[n * 2 + 1]);
      }
    }
    __syncwarp();  // the place is filled again in the next step
  }
  CpAsyncWait<0>();
  __syncthreads();  // the caches become [warp][row][kResult] results

  float* const results = DynamicShared<float>();
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float total = r.total[h];
    total += __shfl_xor_sync(kFullWarp, total, 1);
    total += __shfl_xor_sync(kFullWarp, total, 2);
    float* const out = results + (warp * kRows + lane / 4 + h * 8) * L::kResult;
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
      Store(reinterpret_cast<float2*>(out + i * 8 + lane % 4 * 2),
            make_float2(r.o[i][h * 2], r.o[i][h * 2 + 1]));
    }
    if (lane % 4 == 0) {
      out[kDim] = total;
      out[kDim + 1] = r.largest[h];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kRows * kDim; i += kThreads) {
    const int m = i / kDim, d = i % kDim;
    if (!is_used(m) || d >= dim) continue;
    float largest = kLowestScore, sum = 0.0f, total = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      largest =
          fmaxf(largest, results[(w * kRows + m) * L::kResult + kDim + 1]);
    }
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float* const from = results + (w * kRows + m) * L::kResult;
      const float scale = __expf(from[kDim + 1] - largest);
      sum += from[d] * scale;
      total += from[kDim] * scale;
    }
    float* const out = PartialOf(args, PartialRow(tile, row_of(m)), head_of(m));
    Store(out + d, sum);
    if (d == 0) {
      Store(out + dim, total);
      Store(out + dim + 1, largest);
    }
  }
}

// Block = (row, head), thread = dimension. Splits in ascending order.
__global__ void __launch_bounds__(kThreads)
    MergeAttentionKernel(AttentionArgs args, const int4* rows) {
  const int4 row = LoadReadOnly(rows + blockIdx.x);
  const int head = blockIdx.y, dim = args.kv.head_dim;
  for (int d = threadIdx.x; d < dim; d += kThreads) {
    float largest = kLowestScore, total = 0.0f, sum = 0.0f;
    for (int s = 0; s < row.z; ++s) {
      const float* const p = PartialOf(args, row.y + s, head);
      const float other = LoadReadOnly(p + dim + 1);
      const float next = fmaxf(largest, other);
      const float keep = __expf(largest - next), take = __expf(other - next);
      total = total * keep + LoadReadOnly(p + dim) * take;
      sum = sum * keep + LoadReadOnly(p + d) * take;
      largest = next;
    }
    Store(
        args.y.data + int64_t{row.x} * args.y.stride + int64_t{head} * dim + d,
        sum / total);
  }
}

template <int kDim>
cudaError_t LaunchAttention(const AttentionArgs& args, cudaStream_t stream) {
  using L = Layout<kDim>;
  const cudaError_t error = cudaFuncSetAttribute(
      reinterpret_cast<const void*>(&AttentionKernel<kDim>),
      cudaFuncAttributeMaxDynamicSharedMemorySize,
      static_cast<int>(L::kSharedBytes));
  if (error != cudaSuccess) return error;
  const int group = args.heads / args.kv.kv_heads;
  const int chunks = (group + kRows - 1) / kRows;
  return Launch(AttentionKernel<kDim>,
                {dim3(static_cast<unsigned>(args.tile_count),
                      static_cast<unsigned>(args.kv.kv_heads * chunks)),
                 dim3(kThreads), L::kSharedBytes, stream},
                args);
}

}  // namespace

int64_t AttentionPartialFloats(int64_t heads, int64_t head_dim) {
  return heads * PartialFloats(head_dim);
}

int32_t AttentionRowsPerTile(const KvCache& kv, int64_t heads) {
  const int64_t group = heads / kv.kv_heads;
  return group >= kRows ? 1 : static_cast<int32_t>(kRows / group);
}

cudaError_t Attention(const AttentionArgs& args, cudaStream_t stream) {
  if (args.tile_count == 0) return cudaSuccess;
  const int dim = args.kv.head_dim;
  if (!args.kv.is_bf16 || dim % 8 != 0 || dim > 128) {
    return AttentionGeneric(args, stream);
  }
  if (dim <= 32) return LaunchAttention<32>(args, stream);
  if (dim <= 64) return LaunchAttention<64>(args, stream);
  return LaunchAttention<128>(args, stream);
}

cudaError_t MergeAttention(const AttentionArgs& args, const int4* rows,
                           int64_t row_count, cudaStream_t stream) {
  if (row_count == 0) return cudaSuccess;
  return Launch(MergeAttentionKernel,
                {dim3(static_cast<unsigned>(row_count),
                      static_cast<unsigned>(args.heads)),
                 dim3(kThreads), 0, stream},
                args, rows);
}

}  // namespace lorikeet::cuda
