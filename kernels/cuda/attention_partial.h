// What an attention kernel leaves of one split for one row and head: the
// values' sum, then the weights' sum and the largest score. Both are relative
// to that score, and the merge takes that into account.

#ifndef LORIKEET_KERNELS_CUDA_ATTENTION_PARTIAL_H_
#define LORIKEET_KERNELS_CUDA_ATTENTION_PARTIAL_H_

#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"

namespace lorikeet::cuda {

// A score that no key has; finite, so that differences are no NaN.
constexpr float kLowestScore = -1e30f;

// Floats of one row and head, a multiple of a sector.
__host__ DEVICE constexpr int64_t PartialFloats(int64_t head_dim) {
  return (head_dim + 2 + 7) / 8 * 8;
}

// The partial row of row `row` of a tile: splits of a row lie together.
DEVICE int64_t PartialRow(const AttentionTile& tile, int row) {
  return tile.partial_row + int64_t{row} * tile.split_count + tile.split;
}

DEVICE float* PartialOf(const AttentionArgs& args, int64_t partial_row,
                        int head) {
  return args.partials +
         (partial_row * args.heads + head) * PartialFloats(args.kv.head_dim);
}

// Whether the row at `position` sees key `key`.
DEVICE bool IsSeen(const AttentionArgs& args, int key, int position) {
  return key <= position && (args.window == 0 || key > position - args.window);
}

// Where a head's row of a key begins in the cache.
DEVICE int64_t KeyOffset(const AttentionArgs& args, const AttentionTile& tile,
                         int kv_head, int key) {
  const int block = LoadReadOnly(args.block_tables + tile.table_begin +
                                 key / args.kv.block_size);
  return block * args.kv.block_stride +
         (int64_t{kv_head} * args.kv.block_size + key % args.kv.block_size) *
             args.kv.head_dim;
}

// attention_generic.cu: any head size, f32 or bf16 cache.
cudaError_t AttentionGeneric(const AttentionArgs& args, cudaStream_t stream);

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_ATTENTION_PARTIAL_H_
