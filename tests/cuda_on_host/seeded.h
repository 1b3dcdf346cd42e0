// A small fast generator for schedules. Value type.

#ifndef LORIKEET_TESTS_CUDA_ON_HOST_SEEDED_H_
#define LORIKEET_TESTS_CUDA_ON_HOST_SEEDED_H_

#include <cstdint>

namespace cuda_on_host {

class Seeded {
 public:
  explicit Seeded(uint64_t seed = 1, uint64_t a = 0, uint64_t b = 0)
      : state_((seed * 0x9E3779B97F4A7C15ull) ^ (a * 0xC2B2AE3D27D4EB4Full) ^
               (b * 0x165667B19E3779F9ull) ^ 88172645463325252ull) {
    if (state_ == 0) state_ = 1;
  }
  uint32_t Next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 32);
  }
  uint32_t Below(uint32_t n) {
    return static_cast<uint32_t>((uint64_t{Next()} * n) >> 32);
  }

 private:
  uint64_t state_;
};

}  // namespace cuda_on_host

#endif  // LORIKEET_TESTS_CUDA_ON_HOST_SEEDED_H_
