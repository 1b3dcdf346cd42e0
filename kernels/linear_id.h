// A LinearId names one linear of the base model that LoRA may adapt.
//
// Value type.

#ifndef LORIKEET_KERNELS_LINEAR_ID_H_
#define LORIKEET_KERNELS_LINEAR_ID_H_

#include <array>
#include <compare>
#include <cstdint>

namespace lorikeet {

enum class Projection : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };

inline constexpr int kNumProjections = 7;
inline constexpr std::array<const char*, kNumProjections> kProjectionNames = {
    "q_proj",    "k_proj",  "v_proj",   "o_proj",
    "gate_proj", "up_proj", "down_proj"};

struct LinearId {
  int32_t layer = 0;
  Projection projection = Projection::kQ;

  // Dense index in [0, layers * kNumProjections).
  int32_t index() const {
    return layer * kNumProjections + static_cast<int32_t>(projection);
  }
  friend auto operator<=>(const LinearId&, const LinearId&) = default;
};

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_LINEAR_ID_H_
