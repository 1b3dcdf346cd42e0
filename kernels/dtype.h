// DType names how a number is stored; conversions here are exact where the
// target is wider and round to nearest even where it is narrower.
//
// Pure.

#ifndef LORIKEET_KERNELS_DTYPE_H_
#define LORIKEET_KERNELS_DTYPE_H_

#include <bit>
#include <cstdint>

namespace lorikeet {

enum class DType : uint8_t { kF32, kBF16, kF16 };

// Returns 4 or 2.
constexpr int64_t SizeBytes(DType dtype) {
  return dtype == DType::kF32 ? 4 : 2;
}

// Returns "f32", "bf16" or "f16".
constexpr const char* Name(DType dtype) {
  return dtype == DType::kF32 ? "f32" : dtype == DType::kBF16 ? "bf16" : "f16";
}

inline float FloatFromBF16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
uint16_t BF16FromFloat(float value);
float FloatFromF16(uint16_t bits);
uint16_t F16FromFloat(float value);

// Reads or writes element `index` of an array of `dtype`.
float LoadElement(DType dtype, const void* data, int64_t index);
void StoreElement(DType dtype, void* data, int64_t index, float value);

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_DTYPE_H_
