// Rows of a packed table, read out of its panels (a tied embedding has one
// copy of the weights), as they are or with low-rank parts added, and rows of
// activations.

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "kernels/cpu/operators.h"

namespace lorikeet::cpu {
namespace {

// The block of A that has rank `r`: its first rank and its size.
std::pair<int64_t, int64_t> BlockOf(const RankBlocks& a, int64_t r) {
  int64_t first = 0;
  int64_t size = RankBlocks::BlockSize(a.ranks());
  while (first + size <= r) {
    first += size;
    size = RankBlocks::BlockSize(a.ranks() - first);
  }
  return {first, size};
}

// A[r, begin, ...) of `count` elements.
void ReadRank(const RankBlocks& a, int64_t r, int64_t begin, int64_t count,
              float* out) {
  const auto [first, size] = BlockOf(a, r);
  const char* block = a.block(first);
  for (int64_t k = begin; k < begin + count; ++k) {
    const int64_t vector = (k / kGroup) * size + r - first;
    if (a.dtype() == DType::kI8) {
      *out++ = LoraInt8Element(block + vector * LoraVectorBytes(DType::kI8),
                               k % kGroup);
      continue;
    }
    const int64_t group = vector * kGroup;
    *out++ = LoadElement(a.dtype(), block,
                         group + PlaceInGroup(a.dtype(), k % kGroup));
  }
}

}  // namespace

void CpuOps::MergeRows(const PackedWeight& w, std::span<const MergeTerm> terms,
                       int64_t row_begin, Tensor out) const {
  const Panels& base = static_cast<const Weight&>(w).panels;
  CHECK_EQ(out.cols, base.cols());
  CHECK(row_begin >= 0 && row_begin + out.rows <= base.rows());
  for (int64_t i = 0; i < out.rows; ++i) {
    base.Row(row_begin + i, out.f32(i));
  }
  std::vector<float> delta(static_cast<size_t>(out.cols));
  for (const MergeTerm& term : terms) {
    const Lora& lora = static_cast<const Lora&>(*term.weights);
    CHECK(lora.in_dim() == out.cols && lora.out_dim() == base.rows());
    const int64_t rank = lora.rank();
    std::vector<float> a(static_cast<size_t>(rank * out.cols));
    for (int64_t r = 0; r < rank; ++r) {
      ReadRank(lora.a, r, 0, out.cols, a.data() + r * out.cols);
    }
    std::vector<float> b(static_cast<size_t>(rank));
    for (int64_t i = 0; i < out.rows; ++i) {
      lora.b.Row(row_begin + i, b.data());
      std::ranges::fill(delta, 0.0f);
      for (int64_t r = 0; r < rank; ++r) {
        kernels_.mul_add(b[static_cast<size_t>(r)], a.data() + r * out.cols,
                         out.cols, delta.data());
      }
      kernels_.mul_add(term.scale, delta.data(), out.cols, out.f32(i));
    }
  }
}

void CpuOps::LoraLookup(LinearId id, const LoraBatch& lora,
                        std::span<const Token> tokens, float* v, Stream&) {
  lora_.resize(std::max<size_t>(lora_.size(), 1));
  lora_[0].clear();
  CollectLora(id, lora, v, lora_[0]);
  for (const LoraWork& work : lora_[0]) {
    const RankBlocks& a = work.weights->a;
    float* out = const_cast<float*>(work.v);
    for (int64_t row = work.row_begin; row < work.row_end; ++row) {
      const Token token = tokens[static_cast<size_t>(row)];
      CHECK(token >= 0 && token < a.in_dim());
      for (int64_t r = 0; r < a.ranks(); ++r) ReadRank(a, r, token, 1, out++);
    }
  }
}

void CpuOps::Embed(const PackedWeight& table, std::span<const Token> tokens,
                   Tensor y, Stream&) {
  const Panels& panels = static_cast<const Weight&>(table).panels;
  CHECK_EQ(y.cols, panels.cols());
  const int64_t rows = static_cast<int64_t>(tokens.size());
  ForRows(rows, y.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Token token = tokens[static_cast<size_t>(i)];
      CHECK(token >= 0 && token < panels.rows());
      panels.Row(token, y.f32(i));
    }
  });
}

void CpuOps::GatherRows(ConstTensor x, std::span<const int32_t> rows, Tensor y,
                        Stream&) {
  CHECK_EQ(x.cols, y.cols);
  for (size_t i = 0; i < rows.size(); ++i) {
    CHECK(rows[i] >= 0 && rows[i] < x.rows);
    std::memcpy(y.f32(static_cast<int64_t>(i)), x.f32(rows[i]),
                static_cast<size_t>(x.cols) * sizeof(float));
  }
}

}  // namespace lorikeet::cpu
