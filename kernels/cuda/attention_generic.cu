// Attention for what the tensor cores do not take: a cache of f32, and heads of
// odd sizes.
//
// Block = (tile, kv head), 128 threads, one row and head after the other: a
// thread scores two of the split's 256 keys, then sums the values of its
// dimensions. Moves the split's K and V once per row and head; limit: L2.

#include "kernels/cuda/attention_partial.h"
#include "kernels/cuda/launch.h"

namespace lorikeet::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kKeysPerThread = static_cast<int>(kSplitKeys) / kThreads;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    AttentionGenericKernel(AttentionArgs args) {
  SHARED_ARRAY(float, weights, kSplitKeys);
  SHARED_ARRAY(int64_t, offsets, kSplitKeys);
  SHARED_ARRAY(float, maxima, kWarps);
  SHARED_ARRAY(float, totals, kWarps);
  const AttentionTile tile = args.tiles[blockIdx.x];
  const int kv_head = blockIdx.y, group = args.heads / args.kv.kv_heads;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int dim = args.kv.head_dim;
  const T* const k = static_cast<const T*>(args.kv.k);
  const T* const v = static_cast<const T*>(args.kv.v);
  const int last = tile.position + tile.row_count - 1;
  for (int i = threadIdx.x; i < kSplitKeys; i += kThreads) {
    const int key = tile.key_begin + i;
    offsets[i] = key <= last ? KeyOffset(args, tile, kv_head, key) : 0;
  }
  __syncthreads();

  for (int pair = 0; pair < tile.row_count * group; ++pair) {
    const int row = pair / group, head = kv_head * group + pair % group;
    const int position = tile.position + row;
    const float* const q = args.q.data +
                           (int64_t{tile.row_begin} + row) * args.q.stride +
                           int64_t{head} * dim;
    float scores[kKeysPerThread];
    float largest = kLowestScore;
#pragma unroll
    for (int i = 0; i < kKeysPerThread; ++i) {
      const int j = i * kThreads + threadIdx.x;
      scores[i] = kLowestScore;
      if (!IsSeen(args, tile.key_begin + j, position)) continue;
      float score = 0.0f;
      for (int d = 0; d < dim; ++d) {
        score += LoadReadOnly(q + d) * LoadF32(k + offsets[j] + d);
      }
      scores[i] = score * args.scale;
      largest = fmaxf(largest, scores[i]);
    }
    largest = WarpMax(largest);
    if (lane == 0) maxima[warp] = largest;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) largest = fmaxf(largest, maxima[w]);
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < kKeysPerThread; ++i) {
      const int j = i * kThreads + threadIdx.x;
      const bool is_seen = IsSeen(args, tile.key_begin + j, position);
      const float weight = is_seen ? expf(scores[i] - largest) : 0.0f;
      weights[j] = weight;
      total += weight;
    }
    total = WarpSum(total);
    if (lane == 0) totals[warp] = total;
    __syncthreads();
    float* const out = PartialOf(args, PartialRow(tile, row), head);
    const int count =
        min(static_cast<int>(kSplitKeys), position + 1 - tile.key_begin);
    for (int d = threadIdx.x; d < dim; d += kThreads) {
      float sum = 0.0f;
      for (int j = 0; j < count; ++j) {
        if (weights[j] == 0.0f) continue;  // unseen: never loaded
        sum += weights[j] * LoadF32(v + offsets[j] + d);
      }
      Store(out + d, sum);
    }
    if (threadIdx.x == 0) {
      float all = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) all += totals[w];
      Store(out + dim, all);
      Store(out + dim + 1, largest);
    }
    // What is written again is written after a barrier that comes after its
    // readers: maxima after the second of this pair, the rest after the next
    // pair's first.
  }
}

}  // namespace

cudaError_t AttentionGeneric(const AttentionArgs& args, cudaStream_t stream) {
  const LaunchConfig config{dim3(static_cast<unsigned>(args.tile_count),
                                 static_cast<unsigned>(args.kv.kv_heads)),
                            dim3(kThreads), 0, stream};
  return args.kv.is_bf16 ? Launch(AttentionGenericKernel<Bf16>, config, args)
                         : Launch(AttentionGenericKernel<float>, config, args);
}

}  // namespace lorikeet::cuda
