#include <cmath>

#include "base/check.h"
#include "kernels/reference/operators.h"

namespace lorikeet::reference {

void ReferenceOps::RmsNorm(ConstTensor x, const float* weight, float eps,
                           Tensor y, Stream&) {
  CHECK_EQ(x.cols, y.cols);
  for (int64_t i = 0; i < x.rows; ++i) {
    const float* in = x.f32(i);
    float* out = y.f32(i);
    double sum = 0;
    for (int64_t j = 0; j < x.cols; ++j) {
      sum += static_cast<double>(in[j]) * in[j];
    }
    const double scale = 1 / std::sqrt(sum / static_cast<double>(x.cols) + eps);
    for (int64_t j = 0; j < x.cols; ++j) {
      out[j] = static_cast<float>(in[j] * scale * weight[j]);
    }
  }
}

}  // namespace lorikeet::reference
