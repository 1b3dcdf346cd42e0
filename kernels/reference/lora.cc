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

}  // namespace lorikeet::reference
