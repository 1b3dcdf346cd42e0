#include "server/engine/rate_window.h"

#include <algorithm>

namespace lorikeet {

int64_t RateWindow::BucketNumber(absl::Duration now) {
  return absl::ToInt64Milliseconds(now) / kBucketMs;
}

void RateWindow::Add(absl::Duration now, int64_t amount) {
  const int64_t number = BucketNumber(now);
  if (first_ < 0) first_ = number;
  Bucket& bucket = buckets_[static_cast<size_t>(number) % buckets_.size()];
  if (bucket.number != number) bucket = {number, 0};
  bucket.amount += amount;
}

int64_t RateWindow::Sum(absl::Duration now) const {
  const int64_t last = BucketNumber(now);
  int64_t sum = 0;
  for (const Bucket& bucket : buckets_) {
    const int64_t age = last - bucket.number;
    if (bucket.number >= 0 && age < static_cast<int64_t>(buckets_.size())) {
      sum += bucket.amount;
    }
  }
  return sum;
}

double RateWindow::PerSecond(absl::Duration now) const {
  if (first_ < 0) return 0;
  // The window is shorter at the start.
  const int64_t length_ms =
      std::clamp(absl::ToInt64Milliseconds(now) - first_ * kBucketMs, kBucketMs,
                 kLengthMs);
  return static_cast<double>(Sum(now)) * 1000 / static_cast<double>(length_ms);
}

}  // namespace lorikeet
