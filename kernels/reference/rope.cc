#include "base/check.h"
#include "kernels/reference/operators.h"

namespace lorikeet::reference {

void ReferenceOps::Rope(Tensor x, int64_t head_dim, const float* cos,
                        const float* sin, Stream&) {
  CHECK_EQ(x.cols % head_dim, 0);
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < x.rows; ++i) {
    for (int64_t begin = 0; begin < x.cols; begin += head_dim) {
      float* head = x.f32(i) + begin;
      for (int64_t j = 0; j < half; ++j) {
        const double c = cos[i * half + j];
        const double s = sin[i * half + j];
        const double a = head[j];
        const double b = head[j + half];
        head[j] = static_cast<float>(a * c - b * s);
        head[j + half] = static_cast<float>(b * c + a * s);
      }
    }
  }
}

}  // namespace lorikeet::reference
