// Rows of a packed table, read out of its panels (a tied embedding has one
// copy of the weights), and rows of activations.

#include <cstring>

#include "base/check.h"
#include "kernels/cpu/operators.h"

namespace lorikeet::cpu {

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
