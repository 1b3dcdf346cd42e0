#include <cstring>

#include "base/check.h"
#include "kernels/reference/operators.h"

namespace lorikeet::reference {

void ReferenceOps::Embed(const PackedWeight& table,
                         std::span<const Token> tokens, Tensor y, Stream&) {
  const Matrix& matrix = static_cast<const Weight&>(table).matrix;
  CHECK_EQ(y.cols, matrix.cols());
  for (size_t i = 0; i < tokens.size(); ++i) {
    CHECK(tokens[i] >= 0 && tokens[i] < matrix.rows());
    float* out = y.f32(static_cast<int64_t>(i));
    for (int64_t j = 0; j < y.cols; ++j) {
      out[j] = static_cast<float>(matrix.At(tokens[i], j));
    }
  }
}

void ReferenceOps::GatherRows(ConstTensor x, std::span<const int32_t> rows,
                              Tensor y, Stream&) {
  CHECK_EQ(x.cols, y.cols);
  for (size_t i = 0; i < rows.size(); ++i) {
    CHECK(rows[i] >= 0 && rows[i] < x.rows);
    std::memcpy(y.f32(static_cast<int64_t>(i)), x.f32(rows[i]),
                static_cast<size_t>(x.cols) * sizeof(float));
  }
}

}  // namespace lorikeet::reference
