#include <cstring>

#include "base/check.h"
#include "kernels/reference/operators.h"

namespace lorikeet::reference {

void ReferenceOps::KvAppend(ConstTensor k, ConstTensor v, const PagedKvView& kv,
                            std::span<const SequenceRows> sequences, Stream&) {
  for (const SequenceRows& sequence : sequences) {
    for (int32_t row = sequence.row_begin; row < sequence.row_end; ++row) {
      const int64_t position =
          sequence.first_position + (row - sequence.row_begin);
      const int64_t block =
          sequence.block_table[static_cast<size_t>(position / kv.block_size)];
      for (int64_t i = 0; i < kv.kv_heads * kv.head_dim; ++i) {
        const int64_t head = i / kv.head_dim;
        const int64_t to =
            block * kv.block_stride +
            (head * kv.block_size + position % kv.block_size) * kv.head_dim +
            i % kv.head_dim;
        StoreElement(kv.dtype, kv.k, to, k.At(row, i));
        StoreElement(kv.dtype, kv.v, to, v.At(row, i));
      }
    }
  }
}

void ReferenceOps::KvCopy(const PagedKvView& kv,
                          std::span<const std::pair<int32_t, int32_t>> blocks,
                          Stream&) {
  const int64_t size =
      kv.kv_heads * kv.block_size * kv.head_dim * SizeBytes(kv.dtype);
  const int64_t stride = kv.block_stride * SizeBytes(kv.dtype);
  for (const auto& [from, to] : blocks) {
    for (void* base : {kv.k, kv.v}) {
      char* bytes = static_cast<char*>(base);
      std::memcpy(bytes + to * stride, bytes + from * stride,
                  static_cast<size_t>(size));
    }
  }
}

}  // namespace lorikeet::reference
