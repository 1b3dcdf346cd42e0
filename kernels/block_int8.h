// Numbers in 8 bits by blocks: 32 neighbours along k share one scale, and
//   value = scale * q, q in [-127, 127] (symmetric, no zero point).
// Weights carry an f16 scale, rounded up so that the largest number still fits;
// activations are quantized where they are used and carry an f32 scale. A dot
// product of two blocks is an exact integer, so that every implementation gives
// the same bits; blocks are then added as one f32 chain over ascending k:
//   sum = fma(float(q_w . q_x), scale_w * scale_x, sum)
// (the format of llama.cpp's Q8_0; Dettmers et al. 2022 on why blocks).
//
// Pure.

#ifndef LORIKEET_KERNELS_BLOCK_INT8_H_
#define LORIKEET_KERNELS_BLOCK_INT8_H_

#include <cstdint>

namespace lorikeet {

// The largest q.
inline constexpr float kMostInt8 = 127;
// The largest |w[i]|; a NaN does not count.
float LargestMagnitude(const float* w, int64_t count);
// value as q: to nearest even, within [-127, 127].
int8_t RoundToInt8(float value);

inline constexpr int64_t kInt8Block = 32;

// Larger weights have no f16 scale.
inline constexpr float kInt8MaxWeight = 127 * 65504.0f;

// Bytes that [rows, cols] take: numbers of whole blocks, and scales.
constexpr int64_t Int8Bytes(int64_t rows, int64_t cols) {
  const int64_t blocks = (cols + kInt8Block - 1) / kInt8Block;
  return rows * blocks * (kInt8Block + 2);
}

// Quantizes `count` <= 32 weights; the rest of q is 0. Returns the scale's f16
// bits. REQUIRES: all finite, none beyond kInt8MaxWeight.
uint16_t QuantizeWeightBlock(const float* w, int64_t count, int8_t* q);

// Quantizes `count` <= 32 activations; the rest of q is 0. Returns the scale:
// largest magnitude / 127, or NaN (and zeros) if one is NaN or infinite.
// q = round to nearest even of x * (127 / largest).
float QuantizeActivationBlock(const float* x, int64_t count, int8_t* q);

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_BLOCK_INT8_H_
