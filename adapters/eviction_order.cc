#include "adapters/eviction_order.h"

#include <algorithm>

#include "base/check.h"

namespace lorikeet {
namespace {

// Opening two files and reading their headers, against copying.
constexpr absl::Duration kDiskLatency = absl::Milliseconds(1);
constexpr absl::Duration kHostLatency = absl::Microseconds(50);
// SHA-256 and the check of every value bound the one, memory the other.
constexpr double kDiskBytesPerSecond = 400e6;
constexpr double kHostBytesPerSecond = 4e9;

}  // namespace

void EvictionOrder::Use(Standing* standing, double share,
                        absl::Duration reload) {
  CHECK(share > 0);
  ++standing->uses;
  standing->last_use = ++uses_;
  standing->priority = floor_ + static_cast<double>(standing->uses) *
                                    absl::ToDoubleSeconds(reload) / share;
}

void EvictionOrder::OnEvicted(const Standing& standing) {
  floor_ = std::max(floor_, standing.priority);
}

bool EvictionOrder::GoesBefore(const Standing& a, const Standing& b) {
  if (a.is_waited_for != b.is_waited_for) return b.is_waited_for;
  if (a.priority != b.priority) return a.priority < b.priority;
  return a.last_use < b.last_use;
}

absl::Duration ReloadFromDisk(int64_t bytes) {
  return kDiskLatency +
         absl::Seconds(static_cast<double>(bytes) / kDiskBytesPerSecond);
}

absl::Duration ReloadFromHost(int64_t bytes) {
  return kHostLatency +
         absl::Seconds(static_cast<double>(bytes) / kHostBytesPerSecond);
}

}  // namespace lorikeet
