#include "loadgen/popularity.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace lorikeet {

AdapterPicker::AdapterPicker(Popularity popularity, size_t num_adapters,
                             double zipf_s, uint64_t seed)
    : popularity_(popularity), num_adapters_(num_adapters), rng_(seed) {
  CHECK_GE(num_adapters, size_t{1});
  CHECK_GE(zipf_s, 0);
  if (popularity != Popularity::kZipf) return;
  double sum = 0;
  for (size_t k = 1; k <= num_adapters; ++k) {
    sum += std::pow(static_cast<double>(k), -zipf_s);
    cumulative_.push_back(sum);
  }
}

size_t AdapterPicker::Next() {
  switch (popularity_) {
    case Popularity::kIdentical:
      return 0;
    case Popularity::kUniform:
      return static_cast<size_t>(rng_.Below(num_adapters_));
    case Popularity::kDistinct:
      return turn_++ % num_adapters_;
    case Popularity::kZipf:
      break;
  }
  const double at = rng_.Uniform() * cumulative_.back();
  const auto found =
      std::upper_bound(cumulative_.begin(), cumulative_.end(), at);
  return std::min(static_cast<size_t>(found - cumulative_.begin()),
                  num_adapters_ - 1);
}

}  // namespace lorikeet
