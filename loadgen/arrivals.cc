#include "loadgen/arrivals.h"

#include <cmath>

#include "base/check.h"

namespace lorikeet {

PoissonArrivals::PoissonArrivals(double requests_per_second, uint64_t seed)
    : requests_per_second_(requests_per_second), rng_(seed) {
  CHECK_GT(requests_per_second, 0);
}

absl::Duration PoissonArrivals::Next() {
  // Uniform() may be 0 but never 1.
  now_s_ += -std::log1p(-rng_.Uniform()) / requests_per_second_;
  return absl::Seconds(now_s_);
}

}  // namespace lorikeet
