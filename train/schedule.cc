#include "train/schedule.h"

#include <cmath>
#include <numbers>

namespace lorikeet {

double Schedule::At(int64_t step) const {
  const double t = static_cast<double>(step);
  const double warmup = static_cast<double>(warmup_steps);
  if (step <= warmup_steps) return peak * t / warmup;
  const double x = (t - warmup) / (static_cast<double>(steps) - warmup + 1);
  if (decay == Decay::kLinear) return peak * (1 - x);
  return peak * (1 + std::cos(std::numbers::pi * x)) / 2;
}

}  // namespace lorikeet
