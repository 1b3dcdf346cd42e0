// Random numbers that depend on their key alone: Philox4x32-10 (Salmon et al.,
// "Parallel random numbers: as easy as 1, 2, 3", SC 2011). No state is kept
// anywhere; whoever knows (seed, stream, position) knows the number.
//
// Pure.

#ifndef LORIKEET_BASE_RANDOM_H_
#define LORIKEET_BASE_RANDOM_H_

#include <array>
#include <cstdint>

namespace lorikeet {

// Returns the four words of Philox4x32-10 at `counter` under `key`.
std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter,
                               std::array<uint32_t, 2> key);

// Returns a float in [0, 1) from (seed, stream, position), 24 bits.
float PhiloxUniform(uint64_t seed, uint64_t stream, uint64_t position);

// A sequence of numbers from a seed, for tests, dummy weights and load.
class Rng {
 public:
  explicit Rng(uint64_t seed) : seed_(seed) {}
  uint32_t NextUint32();
  uint64_t NextUint64();
  // In [0, bound). REQUIRES: bound > 0.
  uint64_t Below(uint64_t bound);
  // In [0, 1).
  double Uniform();
  // Standard normal (Box-Muller).
  double Normal();

 private:
  const uint64_t seed_;
  uint64_t position_ = 0;
};

// Returns a seed from the operating system.
uint64_t RandomSeed();

}  // namespace lorikeet

#endif  // LORIKEET_BASE_RANDOM_H_
