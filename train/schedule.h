// The learning rate of each step: up in a line during warm-up, then down to
// nearly zero. No step has rate 0, neither the first nor the last.
//
// Pure.

#ifndef LORIKEET_TRAIN_SCHEDULE_H_
#define LORIKEET_TRAIN_SCHEDULE_H_

#include <cstdint>

namespace lorikeet {

struct Schedule {
  enum class Decay { kLinear, kCosine };

  double peak = 1e-3;
  int64_t steps = 1;         // in all, >= 1
  int64_t warmup_steps = 0;  // < steps
  Decay decay = Decay::kLinear;

  // Of step t in [1, steps]: peak * t / warmup_steps up to there, then with
  // x = (t - warmup_steps) / (steps - warmup_steps + 1) peak * (1 - x) or
  // peak * (1 + cos(pi x)) / 2.
  double At(int64_t step) const;
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_SCHEDULE_H_
