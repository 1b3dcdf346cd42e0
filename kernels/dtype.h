// DType names how a number is stored; conversions here are exact where the
// target is wider and round to nearest even where it is narrower.
//
// Pure.

#ifndef LORIKEET_KERNELS_DTYPE_H_
#define LORIKEET_KERNELS_DTYPE_H_

#include <bit>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace lorikeet {

// kI8 exists only in packed form, with its scales; see block_int8.h.
enum class DType : uint8_t { kF32, kBF16, kF16, kI8 };

// Of one element: 4, 2 or 1.
constexpr int64_t SizeBytes(DType dtype) {
  return dtype == DType::kF32 ? 4 : dtype == DType::kI8 ? 1 : 2;
}

// Returns "f32", "bf16", "f16" or "int8".
constexpr const char* Name(DType dtype) {
  constexpr const char* kNames[] = {"f32", "bf16", "f16", "int8"};
  return kNames[static_cast<int>(dtype)];
}

// The dtype of that name; nullopt for others, such as "auto".
std::optional<DType> ParseDType(absl::string_view name);

inline float FloatFromBF16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
uint16_t BF16FromFloat(float value);
float FloatFromF16(uint16_t bits);
uint16_t F16FromFloat(float value);

// Reads or writes element `index` of an array of `dtype`. REQUIRES: not kI8.
float LoadElement(DType dtype, const void* data, int64_t index);
void StoreElement(DType dtype, void* data, int64_t index, float value);

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_DTYPE_H_
