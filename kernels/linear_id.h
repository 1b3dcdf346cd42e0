// A LinearId names one linear of the base model that an adapter may change, a
// NormId one of its norms.
//
// Value types.

#ifndef LORIKEET_KERNELS_LINEAR_ID_H_
#define LORIKEET_KERNELS_LINEAR_ID_H_

#include <array>
#include <compare>
#include <cstdint>

namespace lorikeet {

// The embedding is a linear whose input is one-hot; on a tied base it and
// lm_head are two linears with one matrix.
enum class Projection : uint8_t {
  kQ,
  kK,
  kV,
  kO,
  kGate,
  kUp,
  kDown,
  // Of no layer.
  kEmbedTokens,
  kLmHead,
};

// Those of a layer.
inline constexpr int kNumProjections = 7;
inline constexpr std::array<const char*, kNumProjections> kProjectionNames = {
    "q_proj",    "k_proj",  "v_proj",   "o_proj",
    "gate_proj", "up_proj", "down_proj"};

struct LinearId {
  int32_t layer = 0;  // -1: kEmbedTokens, kLmHead
  Projection projection = Projection::kQ;

  static constexpr LinearId EmbedTokens() {
    return {-1, Projection::kEmbedTokens};
  }
  static constexpr LinearId LmHead() { return {-1, Projection::kLmHead}; }

  bool is_of_layer() const { return layer >= 0; }
  // Dense index in [0, 2 + layers * kNumProjections), ascending with the id.
  int32_t index() const {
    const int32_t p = static_cast<int32_t>(projection);
    return layer < 0 ? p - kNumProjections : 2 + layer * kNumProjections + p;
  }
  friend auto operator<=>(const LinearId&, const LinearId&) = default;
};

struct NormId {
  enum class Kind : uint8_t { kInput, kPostAttention, kQ, kK, kFinal };
  static constexpr int kKindsOfLayer = 4;

  int32_t layer = 0;  // -1: kFinal
  Kind kind = Kind::kInput;

  static constexpr NormId Final() { return {-1, Kind::kFinal}; }

  // Dense index in [0, 1 + layers * kKindsOfLayer).
  int32_t index() const {
    return layer < 0 ? 0 : 1 + layer * kKindsOfLayer + static_cast<int>(kind);
  }
  friend auto operator<=>(const NormId&, const NormId&) = default;
};

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_LINEAR_ID_H_
