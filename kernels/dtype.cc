#include "kernels/dtype.h"

#include <cmath>

#include "base/check.h"

namespace lorikeet {

uint16_t BF16FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  const uint32_t rounding = 0x7FFF + ((bits >> 16) & 1);
  return static_cast<uint16_t>((bits + rounding) >> 16);
}

float FloatFromF16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1F;
  const uint32_t mantissa = bits & 0x3FF;
  if (exponent == 0) {
    // Zero or subnormal: mantissa * 2^-24, exact in f32.
    const float magnitude = static_cast<float>(mantissa) * 0x1.0p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  if (exponent == 31) {
    return std::bit_cast<float>(sign | 0x7F800000 | (mantissa << 13));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) |
                              (mantissa << 13));
}

uint16_t F16FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7E00);
  // 65520 is the midpoint above the largest f16; it rounds to infinity.
  if (magnitude >= 65520.0f) return static_cast<uint16_t>(sign | 0x7C00);
  if (magnitude < 0x1.0p-14f) {
    const float steps = std::nearbyint(magnitude * 0x1.0p24f);
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(steps));
  }
  const uint32_t b = std::bit_cast<uint32_t>(magnitude);
  const uint32_t rounded = b + 0xFFF + ((b >> 13) & 1);
  return static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13));
}

std::optional<DType> ParseDType(absl::string_view name) {
  for (const DType dtype :
       {DType::kF32, DType::kBF16, DType::kF16, DType::kI8}) {
    if (name == Name(dtype)) return dtype;
  }
  return std::nullopt;
}

float LoadElement(DType dtype, const void* data, int64_t index) {
  if (dtype == DType::kF32) return static_cast<const float*>(data)[index];
  CHECK(dtype != DType::kI8);
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return dtype == DType::kBF16 ? FloatFromBF16(bits) : FloatFromF16(bits);
}

void StoreElement(DType dtype, void* data, int64_t index, float value) {
  if (dtype == DType::kF32) {
    static_cast<float*>(data)[index] = value;
    return;
  }
  CHECK(dtype != DType::kI8);
  static_cast<uint16_t*>(data)[index] =
      dtype == DType::kBF16 ? BF16FromFloat(value) : F16FromFloat(value);
}

}  // namespace lorikeet
