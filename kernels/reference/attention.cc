#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/reference/operators.h"

namespace lorikeet::reference {
namespace {

// Element offset of (position, kv head) of a sequence in K or V.
int64_t CacheOffset(const PagedKvView& kv, const SequenceRows& sequence,
                    int64_t head, int64_t position) {
  const int64_t block =
      sequence.block_table[static_cast<size_t>(position / kv.block_size)];
  return block * kv.block_stride +
         (head * kv.block_size + position % kv.block_size) * kv.head_dim;
}

// One head of one row; sees keys [begin, end).
void AttendHead(const PagedKvView& kv, const SequenceRows& sequence,
                int64_t kv_head, const float* q, float scale, int64_t begin,
                int64_t end, float* y) {
  std::vector<double> weights;
  double best = -INFINITY;
  for (int64_t j = begin; j < end; ++j) {
    const int64_t offset = CacheOffset(kv, sequence, kv_head, j);
    double score = 0;
    for (int64_t d = 0; d < kv.head_dim; ++d) {
      score +=
          static_cast<double>(q[d]) * LoadElement(kv.dtype, kv.k, offset + d);
    }
    weights.push_back(score * scale);
    best = std::max(best, weights.back());
  }
  double sum = 0;
  for (double& w : weights) sum += (w = std::exp(w - best));
  for (int64_t d = 0; d < kv.head_dim; ++d) {
    double value = 0;
    for (int64_t j = begin; j < end; ++j) {
      const int64_t offset = CacheOffset(kv, sequence, kv_head, j);
      value += weights[static_cast<size_t>(j - begin)] *
               LoadElement(kv.dtype, kv.v, offset + d);
    }
    y[d] = static_cast<float>(value / sum);
  }
}

}  // namespace

void ReferenceOps::PagedAttention(ConstTensor q, const PagedKvView& kv,
                                  std::span<const SequenceRows> sequences,
                                  float scale, int64_t window, Tensor y,
                                  Stream&) {
  const int64_t heads = q.cols / kv.head_dim;
  CHECK_EQ(heads % kv.kv_heads, 0);
  const int64_t group = heads / kv.kv_heads;
  for (const SequenceRows& sequence : sequences) {
    for (int32_t row = sequence.row_begin; row < sequence.row_end; ++row) {
      const int64_t position =
          sequence.first_position + (row - sequence.row_begin);
      const int64_t begin =
          window > 0 ? std::max<int64_t>(0, position - window + 1) : 0;
      for (int64_t h = 0; h < heads; ++h) {
        AttendHead(kv, sequence, h / group, q.f32(row) + h * kv.head_dim, scale,
                   begin, position + 1, y.f32(row) + h * kv.head_dim);
      }
    }
  }
}

}  // namespace lorikeet::reference
