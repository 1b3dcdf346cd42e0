// Writes of the paged cache; see paged_kv.h for its layout.

#include <cstring>

#include "base/check.h"
#include "kernels/cpu/operators.h"

namespace lorikeet::cpu {
namespace {

// One row of k or v to its position in block `block`.
void AppendRow(const KernelTable& kernels, const PagedKvView& kv, void* base,
               int64_t block, int64_t slot, const float* from) {
  for (int64_t head = 0; head < kv.kv_heads; ++head) {
    const int64_t to =
        block * kv.block_stride + (head * kv.block_size + slot) * kv.head_dim;
    const float* x = from + head * kv.head_dim;
    if (kv.dtype == DType::kF32) {
      std::memcpy(static_cast<float*>(base) + to, x,
                  static_cast<size_t>(kv.head_dim) * sizeof(float));
    } else {
      kernels.to_bf16(x, kv.head_dim, static_cast<uint16_t*>(base) + to);
    }
  }
}

}  // namespace

void CpuOps::KvAppend(ConstTensor k, ConstTensor v, const PagedKvView& kv,
                      std::span<const SequenceRows> sequences, Stream&) {
  CHECK(kv.dtype == DType::kF32 || kv.dtype == DType::kBF16);
  CHECK_EQ(k.cols, kv.kv_heads * kv.head_dim);
  CHECK_EQ(v.cols, k.cols);
  sequence_of_row_.assign(static_cast<size_t>(k.rows), nullptr);
  for (const SequenceRows& s : sequences) {
    for (int32_t row = s.row_begin; row < s.row_end; ++row) {
      sequence_of_row_[static_cast<size_t>(row)] = &s;
    }
  }
  ForRows(k.rows, k.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const SequenceRows* s = sequence_of_row_[static_cast<size_t>(row)];
      if (s == nullptr) continue;
      const int64_t position = s->first_position + (row - s->row_begin);
      const int64_t block =
          s->block_table[static_cast<size_t>(position / kv.block_size)];
      const int64_t slot = position % kv.block_size;
      AppendRow(kernels_, kv, kv.k, block, slot, k.f32(row));
      AppendRow(kernels_, kv, kv.v, block, slot, v.f32(row));
    }
  });
}

void CpuOps::KvCopy(const PagedKvView& kv,
                    std::span<const std::pair<int32_t, int32_t>> blocks,
                    Stream&) {
  const int64_t bytes =
      kv.kv_heads * kv.block_size * kv.head_dim * SizeBytes(kv.dtype);
  const int64_t stride = kv.block_stride * SizeBytes(kv.dtype);
  for (const auto& [from, to] : blocks) {
    for (void* base : {kv.k, kv.v}) {
      char* cache = static_cast<char*>(base);
      std::memcpy(cache + to * stride, cache + from * stride,
                  static_cast<size_t>(bytes));
    }
  }
}

}  // namespace lorikeet::cpu
