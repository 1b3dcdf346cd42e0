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

}  // namespace lorikeet::reference
