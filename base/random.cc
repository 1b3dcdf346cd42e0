#include "base/random.h"

#include <sys/random.h>

#include <cmath>

#include "base/check.h"

namespace lorikeet {

std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> c,
                               std::array<uint32_t, 2> k) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(kMultiplier0) * c[0];
    const uint64_t p1 = static_cast<uint64_t>(kMultiplier1) * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0],
         static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1],
         static_cast<uint32_t>(p0)};
    k[0] += kWeyl0;
    k[1] += kWeyl1;
  }
  return c;
}

float PhiloxUniform(uint64_t seed, uint64_t stream, uint64_t position) {
  const auto words = Philox(
      {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32),
       static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)},
      {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return static_cast<float>(words[0] >> 8) * 0x1.0p-24f;
}

uint64_t Rng::NextUint64() {
  const auto w = Philox(
      {static_cast<uint32_t>(position_), static_cast<uint32_t>(position_ >> 32),
       0, 0},
      {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
  ++position_;
  return (static_cast<uint64_t>(w[1]) << 32) | w[0];
}

uint32_t Rng::NextUint32() { return static_cast<uint32_t>(NextUint64()); }

uint64_t Rng::Below(uint64_t bound) {
  CHECK_GT(bound, 0u);
  return NextUint64() % bound;
}

double Rng::Uniform() {
  return static_cast<double>(NextUint64() >> 11) * 0x1.0p-53;
}

double Rng::Normal() {
  constexpr double kTwoPi = 6.283185307179586;
  const double u = 1.0 - Uniform();
  const double v = Uniform();
  return std::sqrt(-2.0 * std::log(u)) * std::cos(kTwoPi * v);
}

uint64_t RandomSeed() {
  uint64_t seed = 0;
  CHECK(getrandom(&seed, sizeof(seed), 0) ==
        static_cast<ssize_t>(sizeof(seed)));
  return seed;
}

}  // namespace lorikeet
