#include "kernels/block_int8.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/dtype.h"

namespace lorikeet {
namespace {

// The smallest f16 that is not below `value`. REQUIRES: 0 <= value <= 65504.
uint16_t F16NotBelow(float value) {
  const uint16_t bits = F16FromFloat(value);
  return FloatFromF16(bits) < value ? static_cast<uint16_t>(bits + 1) : bits;
}

}  // namespace

float LargestMagnitude(const float* w, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::abs(w[i]));
  }
  return largest;
}

int8_t RoundToInt8(float value) {
  return static_cast<int8_t>(
      std::clamp(std::nearbyint(value), -kMostInt8, kMostInt8));
}

uint16_t QuantizeWeightBlock(const float* w, int64_t count, int8_t* q) {
  std::memset(q, 0, kInt8Block);
  const uint16_t bits = F16NotBelow(LargestMagnitude(w, count) / kMostInt8);
  if (bits == 0) return 0;
  const float scale = FloatFromF16(bits);
  for (int64_t i = 0; i < count; ++i) q[i] = RoundToInt8(w[i] / scale);
  return bits;
}

float QuantizeActivationBlock(const float* x, int64_t count, int8_t* q) {
  std::memset(q, 0, kInt8Block);
  if (!std::all_of(x, x + count, [](float f) { return std::isfinite(f); })) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  const float largest = LargestMagnitude(x, count);
  // Below this 127 / largest is not finite; such a block is 0.
  if (largest < std::numeric_limits<float>::min()) return 0;
  const float inverse = kMostInt8 / largest;
  for (int64_t i = 0; i < count; ++i) q[i] = RoundToInt8(x[i] * inverse);
  return largest / kMostInt8;
}

}  // namespace lorikeet
