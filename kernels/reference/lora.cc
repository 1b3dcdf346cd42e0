#include "base/check.h"
#include "kernels/reference/operators.h"

namespace lorikeet::reference {
namespace {

// Calls fn(segment, term, weights, scaling * scale, offset of v) for each term
// that adapts `id`.
template <typename Fn>
void ForEachTerm(LinearId id, const LoraBatch& lora, const Fn& fn) {
  std::vector<int64_t> offsets;
  LoraLayout(id, lora, &offsets);
  size_t i = 0;
  for (const LoraSegment& segment : lora.segments) {
    for (const LoraTerm& term : segment.terms) {
      const int64_t offset = offsets[i++];
      if (offset < 0) continue;
      const LoraSlot::Entry* entry = term.slot->Find(id);
      fn(segment, static_cast<const Lora&>(*entry->weights),
         static_cast<double>(entry->scaling * term.scale), offset);
    }
  }
}

}  // namespace

void ReferenceOps::LoraShrink(LinearId id, const LoraBatch& lora, ConstTensor x,
                              float* v, Stream&) {
  ForEachTerm(
      id, lora,
      [&](const LoraSegment& segment, const Lora& weights, double,
          int64_t offset) {
        CHECK_EQ(x.cols, weights.in_dim());
        float* out = v + offset;
        for (int32_t row = segment.row_begin; row < segment.row_end; ++row) {
          for (int64_t r = 0; r < weights.rank(); ++r) {
            double sum = 0;
            for (int64_t k = 0; k < x.cols; ++k) {
              sum += static_cast<double>(x.f32(row)[k]) * weights.a.At(r, k);
            }
            *out++ = static_cast<float>(sum);
          }
        }
      });
}

void ReferenceOps::LoraExpand(LinearId id, const LoraBatch& lora,
                              const float* v, Tensor y, Stream&) {
  ForEachTerm(id, lora,
              [&](const LoraSegment& segment, const Lora& weights, double scale,
                  int64_t offset) {
                CHECK_EQ(y.cols, weights.out_dim());
                const float* in = v + offset;
                for (int32_t row = segment.row_begin; row < segment.row_end;
                     ++row) {
                  float* out = y.f32(row);
                  for (int64_t n = 0; n < y.cols; ++n) {
                    double sum = 0;
                    for (int64_t r = 0; r < weights.rank(); ++r) {
                      sum += static_cast<double>(in[r]) * weights.b.At(n, r);
                    }
                    out[n] = static_cast<float>(out[n] + scale * sum);
                  }
                  in += weights.rank();
                }
              });
}

void ReferenceOps::LoraLookup(LinearId id, const LoraBatch& lora,
                              std::span<const Token> tokens, float* v,
                              Stream&) {
  ForEachTerm(id, lora,
              [&](const LoraSegment& segment, const Lora& weights, double,
                  int64_t offset) {
                float* out = v + offset;
                for (int32_t row = segment.row_begin; row < segment.row_end;
                     ++row) {
                  const Token token = tokens[static_cast<size_t>(row)];
                  CHECK(token >= 0 && token < weights.in_dim());
                  for (int64_t r = 0; r < weights.rank(); ++r) {
                    *out++ = static_cast<float>(weights.a.At(r, token));
                  }
                }
              });
}

void ReferenceOps::MergeRows(const PackedWeight& w,
                             std::span<const MergeTerm> terms,
                             int64_t row_begin, Tensor out) const {
  const Matrix& base = static_cast<const Weight&>(w).matrix;
  CHECK_EQ(out.cols, base.cols());
  for (int64_t i = 0; i < out.rows; ++i) {
    for (int64_t k = 0; k < out.cols; ++k) {
      double sum = base.At(row_begin + i, k);
      for (const MergeTerm& term : terms) {
        const Lora& lora = static_cast<const Lora&>(*term.weights);
        for (int64_t r = 0; r < lora.rank(); ++r) {
          sum += static_cast<double>(term.scale) * lora.b.At(row_begin + i, r) *
                 lora.a.At(r, k);
        }
      }
      out.f32(i)[k] = static_cast<float>(sum);
    }
  }
}

}  // namespace lorikeet::reference
