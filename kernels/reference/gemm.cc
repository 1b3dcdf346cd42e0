#include "base/check.h"
#include "kernels/reference/operators.h"

namespace lorikeet::reference {

void ReferenceOps::Gemm(ConstTensor x, const PackedWeight& w, const float* bias,
                        Tensor y, Stream&) {
  const Matrix& matrix = static_cast<const Weight&>(w).matrix;
  CHECK_EQ(x.cols, matrix.cols());
  CHECK_EQ(y.cols, matrix.rows());
  CHECK_EQ(x.rows, y.rows);
  for (int64_t i = 0; i < x.rows; ++i) {
    const float* in = x.f32(i);
    float* out = y.f32(i);
    for (int64_t n = 0; n < y.cols; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < x.cols; ++k) {
        sum += static_cast<double>(in[k]) * matrix.At(n, k);
      }
      out[n] = static_cast<float>(bias == nullptr ? sum : sum + bias[n]);
    }
  }
}

}  // namespace lorikeet::reference
