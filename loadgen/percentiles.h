// The usual numbers about many measurements.
//
// Pure.

#ifndef LORIKEET_LOADGEN_PERCENTILES_H_
#define LORIKEET_LOADGEN_PERCENTILES_H_

#include <cstddef>
#include <vector>

namespace lorikeet {

struct Summary {
  size_t count = 0;
  double mean = 0;
  double min = 0;
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double max = 0;
};

// Returns the smallest value that at least `percent` % of `sorted` do not
// exceed (nearest rank: always one of the values); 0 of none.
// REQUIRES: `sorted` ascends, percent in [0, 100].
double Percentile(const std::vector<double>& sorted, double percent);

// All 0 of none.
Summary Summarize(std::vector<double> values);

}  // namespace lorikeet

#endif  // LORIKEET_LOADGEN_PERCENTILES_H_
