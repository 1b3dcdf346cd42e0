// Philox4x32-10 (Salmon et al. 2011) on the device; the same numbers as
// Philox and PhiloxUniform of base/random.h.

#ifndef LORIKEET_KERNELS_CUDA_PHILOX_H_
#define LORIKEET_KERNELS_CUDA_PHILOX_H_

#include "kernels/cuda/device.h"

namespace lorikeet::cuda {

// The four words at `counter` of sequence `stream` under `seed`.
DEVICE void DevicePhilox(uint64_t seed, uint64_t stream, uint64_t counter,
                         uint32_t (&c)[4]) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  c[0] = static_cast<uint32_t>(counter);
  c[1] = static_cast<uint32_t>(counter >> 32);
  c[2] = static_cast<uint32_t>(stream);
  c[3] = static_cast<uint32_t>(stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed);
  uint32_t k1 = static_cast<uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(kMultiplier0, c[0]);
    const uint32_t high1 = __umulhi(kMultiplier1, c[2]);
    const uint32_t low0 = kMultiplier0 * c[0], low1 = kMultiplier1 * c[2];
    c[0] = high1 ^ c[1] ^ k0;
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ k1;
    c[3] = low0;
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
}

// In [0, 1), 24 bits.
DEVICE float DevicePhiloxUniform(uint64_t seed, uint64_t stream,
                                 uint64_t position) {
  uint32_t words[4];
  DevicePhilox(seed, stream, position, words);
  return static_cast<float>(words[0] >> 8) * 0x1.0p-24f;
}

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_PHILOX_H_
