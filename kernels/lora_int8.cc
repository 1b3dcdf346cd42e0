#include "kernels/lora_int8.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "kernels/block_int8.h"
#include "kernels/dtype.h"

namespace lorikeet {
namespace {

// The smallest bf16 that is not below `value`. REQUIRES: value >= 0, and it has
// a finite one.
uint16_t Bf16NotBelow(float value) {
  const uint16_t bits = BF16FromFloat(value);
  return FloatFromBF16(bits) < value ? static_cast<uint16_t>(bits + 1) : bits;
}

// out = the vector of `count` numbers from (row, col) on, along a column or a
// row of m, as it is kept.
void RoundVector(const ConstTensor& m, int64_t row, int64_t col, bool by_column,
                 int64_t count, Tensor out) {
  float w[kLoraVector] = {};
  int8_t q[kLoraVector];
  for (int64_t i = 0; i < count; ++i) {
    w[i] = by_column ? m.At(row + i, col) : m.At(row, col + i);
  }
  const float scale = FloatFromBF16(QuantizeLoraVector(w, count, q));
  for (int64_t i = 0; i < count; ++i) {
    float& to = by_column ? out.f32(row + i)[col] : out.f32(row)[col + i];
    to = scale * static_cast<float>(q[i]);
  }
}

}  // namespace

uint16_t QuantizeLoraVector(const float* w, int64_t count, int8_t* q) {
  std::memset(q, 0, kLoraVector);
  const uint16_t bits = Bf16NotBelow(LargestMagnitude(w, count) / kMostInt8);
  const float scale = FloatFromBF16(bits);
  // Products with a subnormal scale would not be exact everywhere.
  if (!std::isnormal(scale)) return 0;
  for (int64_t i = 0; i < count; ++i) q[i] = RoundToInt8(w[i] / scale);
  return bits;
}

void RoundLoraA(ConstTensor a, Tensor out) {
  CHECK(out.rows == a.rows && out.cols == a.cols);
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t k = 0; k < a.cols; k += kLoraVector) {
      RoundVector(a, r, k, /*by_column=*/false,
                  std::min(kLoraVector, a.cols - k), out);
    }
  }
}

void RoundLoraB(ConstTensor b, Tensor out) {
  CHECK(out.rows == b.rows && out.cols == b.cols);
  for (int64_t n = 0; n < b.rows; n += kLoraVector) {
    for (int64_t r = 0; r < b.cols; ++r) {
      RoundVector(b, n, r, /*by_column=*/true,
                  std::min(kLoraVector, b.rows - n), out);
    }
  }
}

}  // namespace lorikeet
