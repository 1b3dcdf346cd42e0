#include <algorithm>
#include <vector>

#include "base/check.h"
#include "kernels/block_int8.h"
#include "kernels/reference/operators.h"

namespace lorikeet::reference {
namespace {

// x as it meets the weights: int8 weights meet x in 8 bits.
std::vector<double> Input(const float* x, int64_t count, DType weight) {
  std::vector<double> in(x, x + count);
  if (weight != DType::kI8) return in;
  int8_t q[kInt8Block];
  for (int64_t k = 0; k < count; k += kInt8Block) {
    const int64_t size = std::min(kInt8Block, count - k);
    const double scale = QuantizeActivationBlock(x + k, size, q);
    for (int64_t j = 0; j < size; ++j) {
      in[static_cast<size_t>(k + j)] = scale * q[j];
    }
  }
  return in;
}

}  // namespace

void ReferenceOps::Gemm(ConstTensor x, const PackedWeight& w, const float* bias,
                        Tensor y, Stream&) {
  const Matrix& matrix = static_cast<const Weight&>(w).matrix;
  CHECK_EQ(x.cols, matrix.cols());
  CHECK_EQ(y.cols, matrix.rows());
  CHECK_EQ(x.rows, y.rows);
  for (int64_t i = 0; i < x.rows; ++i) {
    const std::vector<double> in = Input(x.f32(i), x.cols, matrix.dtype());
    float* out = y.f32(i);
    for (int64_t n = 0; n < y.cols; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < x.cols; ++k) {
        sum += in[static_cast<size_t>(k)] * matrix.At(n, k);
      }
      out[n] = static_cast<float>(bias == nullptr ? sum : sum + bias[n]);
    }
  }
}

}  // namespace lorikeet::reference
