// When the requests of an open-loop load start: a Poisson process, whose gaps
// are exponential, so that requests come in the bursts of real users. A rate of
// infinity starts all at once.
//
// Depends on the seed alone. Thread-compatible.

#ifndef LORIKEET_LOADGEN_ARRIVALS_H_
#define LORIKEET_LOADGEN_ARRIVALS_H_

#include <cstdint>

#include "absl/time/time.h"
#include "base/random.h"

namespace lorikeet {

class PoissonArrivals {
 public:
  // REQUIRES: requests_per_second > 0.
  PoissonArrivals(double requests_per_second, uint64_t seed);

  // Returns the next start, since the beginning of the load; never decreases.
  absl::Duration Next();

 private:
  const double requests_per_second_;
  Rng rng_;
  double now_s_ = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_LOADGEN_ARRIVALS_H_
