// The paged KV cache as kernels see it, and which rows of a step belong to
// which sequence.
//
// Plain data. Memory: for one layer, block b of K is
// [kv_heads, block_size, head_dim] at k + b * block_stride; V alike.

#ifndef LORIKEET_KERNELS_PAGED_KV_H_
#define LORIKEET_KERNELS_PAGED_KV_H_

#include <cstdint>
#include <span>

#include "kernels/dtype.h"

namespace lorikeet {

// One layer of the pool.
struct PagedKvView {
  void* k = nullptr;
  void* v = nullptr;
  DType dtype = DType::kF32;  // kF32 or kBF16
  int64_t block_size = 0;     // tokens in a block, a multiple of 32
  int64_t block_stride = 0;   // elements: kv_heads * block_size * head_dim
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

// The rows of one sequence in a step: contiguous, at positions
// first_position + 0, 1, 2, ...
struct SequenceRows {
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t first_position = 0;
  // Block i holds positions [i * block_size, (i + 1) * block_size).
  std::span<const int32_t> block_table;
};

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_PAGED_KV_H_
