#include "adapters/popularity.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace lorikeet {

double Popularity::At(const Score& score, absl::Duration now) {
  return score.value *
         std::exp2(-absl::FDivDuration(now - score.time, kHalfLife));
}

void Popularity::Count(const AdapterKey& key, absl::Duration now) {
  Score& score = scores_[key];
  score.value = At(score, now) + 1;
  score.time = now;
  if (scores_.size() > kMaxKeys) Prune(now);
}

double Popularity::Of(const AdapterKey& key, absl::Duration now) const {
  const auto it = scores_.find(key);
  return it == scores_.end() ? 0 : At(it->second, now);
}

std::vector<AdapterKey> Popularity::Top(size_t n, absl::Duration now) const {
  std::vector<std::pair<double, const AdapterKey*>> order;
  for (const auto& [key, score] : scores_) {
    const double value = At(score, now);
    if (value >= 1) order.emplace_back(-value, &key);
  }
  const size_t count = std::min(n, order.size());
  std::partial_sort(
      order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count),
      order.end(), [](const auto& a, const auto& b) {
        return a.first != b.first ? a.first < b.first : *a.second < *b.second;
      });
  std::vector<AdapterKey> keys;
  for (size_t i = 0; i < count; ++i) keys.push_back(*order[i].second);
  return keys;
}

void Popularity::Prune(absl::Duration now) {
  std::vector<std::pair<double, AdapterKey>> order;
  for (const auto& [key, score] : scores_) {
    order.emplace_back(At(score, now), key);
  }
  // Half of them, so that it is not done at every request.
  const size_t half = order.size() / 2;
  std::nth_element(order.begin(),
                   order.begin() + static_cast<std::ptrdiff_t>(half),
                   order.end());
  for (size_t i = 0; i < half; ++i) scores_.erase(order[i].second);
}

}  // namespace lorikeet
