#include <cmath>

#include "base/check.h"
#include "kernels/reference/operators.h"

namespace lorikeet::reference {

void ReferenceOps::SiluMul(ConstTensor gate, ConstTensor up, Tensor y,
                           Stream&) {
  CHECK_EQ(gate.cols, up.cols);
  CHECK_EQ(gate.cols, y.cols);
  for (int64_t i = 0; i < gate.rows; ++i) {
    const float* g = gate.f32(i);
    const float* u = up.f32(i);
    float* out = y.f32(i);
    for (int64_t j = 0; j < gate.cols; ++j) {
      const double z = g[j];
      out[j] = static_cast<float>(z / (1 + std::exp(-z)) * u[j]);
    }
  }
}

void ReferenceOps::ResidualAdd(ConstTensor x, Tensor y, Stream&) {
  CHECK_EQ(x.cols, y.cols);
  for (int64_t i = 0; i < x.rows; ++i) {
    const float* in = x.f32(i);
    float* out = y.f32(i);
    for (int64_t j = 0; j < x.cols; ++j) out[j] += in[j];
  }
}

void ReferenceOps::ScaleColumns(const float* gain, const float* bias, Tensor y,
                                Stream&) {
  for (int64_t i = 0; i < y.rows; ++i) {
    float* out = y.f32(i);
    for (int64_t j = 0; j < y.cols; ++j) {
      const double product = static_cast<double>(gain[j]) * out[j];
      out[j] =
          static_cast<float>(bias == nullptr ? product : product + bias[j]);
    }
  }
}

void ReferenceOps::ScatterColumns(ConstTensor x, std::span<const int32_t> cols,
                                  Tensor y, Stream&) {
  CHECK_EQ(x.rows, y.rows);
  CHECK_EQ(x.cols, static_cast<int64_t>(cols.size()));
  for (int64_t i = 0; i < x.rows; ++i) {
    for (int64_t j = 0; j < x.cols; ++j) {
      const int32_t col = cols[static_cast<size_t>(j)];
      CHECK(col >= 0 && col < y.cols);
      y.f32(i)[col] = x.f32(i)[j];
    }
  }
}

}  // namespace lorikeet::reference
