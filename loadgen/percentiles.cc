#include "loadgen/percentiles.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace lorikeet {

double Percentile(const std::vector<double>& sorted, double percent) {
  CHECK(percent >= 0 && percent <= 100);
  if (sorted.empty()) return 0;
  const auto rank = static_cast<size_t>(
      std::ceil(percent / 100 * static_cast<double>(sorted.size())));
  return sorted[std::min(std::max(rank, size_t{1}), sorted.size()) - 1];
}

Summary Summarize(std::vector<double> values) {
  Summary summary;
  if (values.empty()) return summary;
  std::sort(values.begin(), values.end());
  summary.count = values.size();
  summary.mean = std::accumulate(values.begin(), values.end(), 0.0) /
                 static_cast<double>(values.size());
  summary.min = values.front();
  summary.p50 = Percentile(values, 50);
  summary.p90 = Percentile(values, 90);
  summary.p99 = Percentile(values, 99);
  summary.max = values.back();
  return summary;
}

}  // namespace lorikeet
