#include "kernels/block_int8.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/dtype.h"

namespace lorikeet {
namespace {

constexpr float kMost = 127;

int8_t Rounded(float value) {
  return static_cast<int8_t>(std::clamp(std::nearbyint(value), -kMost, kMost));
}

// The smallest f16 that is not below `value`. REQUIRES: 0 <= value <= 65504.
uint16_t F16NotBelow(float value) {
  const uint16_t bits = F16FromFloat(value);
  return FloatFromF16(bits) < value ? static_cast<uint16_t>(bits + 1) : bits;
}

}  // namespace

uint16_t QuantizeWeightBlock(const float* w, int64_t count, int8_t* q) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::abs(w[i]));
  }
  std::memset(q, 0, kInt8Block);
  const uint16_t bits = F16NotBelow(largest / kMost);
  if (bits == 0) return 0;
  const float scale = FloatFromF16(bits);
  for (int64_t i = 0; i < count; ++i) q[i] = Rounded(w[i] / scale);
  return bits;
}

float QuantizeActivationBlock(const float* x, int64_t count, int8_t* q) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    finite = finite && std::isfinite(x[i]);
    largest = std::max(largest, std::abs(x[i]));
  }
  std::memset(q, 0, kInt8Block);
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  // Below this 127 / largest is not finite; such a block is 0.
  if (largest < std::numeric_limits<float>::min()) return 0;
  const float inverse = kMost / largest;
  for (int64_t i = 0; i < count; ++i) q[i] = Rounded(x[i] * inverse);
  return largest / kMost;
}

}  // namespace lorikeet
