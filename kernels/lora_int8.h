// LoRA's A and B in 8 bits: vectors of 32 numbers share one scale, and
//   value = scale * q, q in [-127, 127]
// A vector is 32 neighbours of a rank of A [rank, in], or 32 outputs of a
// column of B [out, rank]: what belongs to one rank has one size. Transposing
// both and swapping them gives the same vectors. The scale is a bf16, which has
// the range of the weights (those of a young B are tiny), rounded up so that
// the largest number still fits. scale * q is exact in f32: an adapter in 8
// bits computes what one in f32 with these values computes, to the bit.
//
// Pure.

#ifndef LORIKEET_KERNELS_LORA_INT8_H_
#define LORIKEET_KERNELS_LORA_INT8_H_

#include <cstdint>

#include "kernels/tensor.h"

namespace lorikeet {

inline constexpr int64_t kLoraVector = 32;
// The scale, then the numbers.
inline constexpr int64_t kLoraInt8VectorBytes = 2 + kLoraVector;

// Quantizes `count` <= 32 finite numbers; the rest of q is 0. Returns the
// scale's bf16 bits.
uint16_t QuantizeLoraVector(const float* w, int64_t count, int8_t* q);

// out [rows, cols] f32 = the values that stand for those of A or B.
void RoundLoraA(ConstTensor a, Tensor out);
void RoundLoraB(ConstTensor b, Tensor out);

// Bytes that A and B take.
constexpr int64_t LoraInt8Bytes(int64_t rank, int64_t in, int64_t out) {
  const int64_t vectors = (in + kLoraVector - 1) / kLoraVector +
                          (out + kLoraVector - 1) / kLoraVector;
  return rank * vectors * kLoraInt8VectorBytes;
}

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_LORA_INT8_H_
