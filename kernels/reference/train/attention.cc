#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "kernels/reference/train/operators.h"

namespace lorikeet::reference {
namespace {

double Dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// The rows that row `i` of a sequence sees.
int64_t FirstSeen(const SequenceRows& s, int64_t i, int64_t window) {
  return window > 0 ? std::max<int64_t>(s.row_begin, i - window + 1)
                    : s.row_begin;
}

// Calls fn(head, row, first row seen) for all rows and heads.
template <typename Fn>
void ForEachRow(std::span<const SequenceRows> sequences,
                const AttentionHeads& heads, const Fn& fn) {
  for (const SequenceRows& s : sequences) {
    for (int64_t h = 0; h < heads.heads; ++h) {
      for (int64_t i = s.row_begin; i < s.row_end; ++i) {
        fn(h, i, FirstSeen(s, i, heads.window));
      }
    }
  }
}

}  // namespace

void ReferenceTrainOps::Attention(ConstTensor q, ConstTensor k, ConstTensor v,
                                  std::span<const SequenceRows> sequences,
                                  const AttentionHeads& heads, Tensor y,
                                  Tensor lse, Stream&) {
  const int64_t d = heads.head_dim;
  const int64_t group = heads.heads / heads.kv_heads;
  ForEachRow(sequences, heads, [&](int64_t h, int64_t i, int64_t first) {
    const int64_t kv = h / group * d;
    std::vector<double> score;
    double max = -INFINITY;
    for (int64_t j = first; j <= i; ++j) {
      score.push_back(heads.scale * Dot(q.f32(i) + h * d, k.f32(j) + kv, d));
      max = std::max(max, score.back());
    }
    double sum = 0;
    for (const double s : score) sum += std::exp(s - max);
    lse.f32(i)[h] = static_cast<float>(max + std::log(sum));
    for (int64_t c = 0; c < d; ++c) {
      double out = 0;
      for (int64_t j = first; j <= i; ++j) {
        out += std::exp(score[static_cast<size_t>(j - first)] - max) / sum *
               v.f32(j)[kv + c];
      }
      y.f32(i)[h * d + c] = static_cast<float>(out);
    }
  });
}

void ReferenceTrainOps::AttentionBackward(
    ConstTensor q, ConstTensor k, ConstTensor v, ConstTensor y, ConstTensor lse,
    ConstTensor dy, std::span<const SequenceRows> sequences,
    const AttentionHeads& heads, Tensor dq, Tensor dk, Tensor dv,
    Stream& stream) {
  const int64_t d = heads.head_dim;
  const int64_t group = heads.heads / heads.kv_heads;
  for (const Tensor& t : {dq, dk, dv}) Clear(t, stream);
  ForEachRow(sequences, heads, [&](int64_t h, int64_t i, int64_t first) {
    const int64_t kv = h / group * d;
    const float* qi = q.f32(i) + h * d;
    const float* dyi = dy.f32(i) + h * d;
    const double along = Dot(dyi, y.f32(i) + h * d, d);
    std::vector<double> dqi(static_cast<size_t>(d));
    for (int64_t j = first; j <= i; ++j) {
      const double p = std::exp(heads.scale * Dot(qi, k.f32(j) + kv, d) -
                                static_cast<double>(lse.f32(i)[h]));
      const double ds = heads.scale * p * (Dot(dyi, v.f32(j) + kv, d) - along);
      for (int64_t c = 0; c < d; ++c) {
        dqi[static_cast<size_t>(c)] += ds * k.f32(j)[kv + c];
        dk.f32(j)[kv + c] += static_cast<float>(ds * qi[c]);
        dv.f32(j)[kv + c] += static_cast<float>(p * dyi[c]);
      }
    }
    for (int64_t c = 0; c < d; ++c) {
      dq.f32(i)[h * d + c] = static_cast<float>(dqi[static_cast<size_t>(c)]);
    }
  });
}

}  // namespace lorikeet::reference
