#include "base/clock.h"

#include <chrono>
#include <thread>

#include "absl/time/clock.h"

namespace lorikeet {

absl::Time SystemClock::WallNow() const { return absl::Now(); }

absl::Duration SystemClock::Now() const {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

absl::Time ManualClock::WallNow() const { return absl::UnixEpoch() + Now(); }

absl::Duration ManualClock::Now() const {
  MutexLock lock(&mu_);
  return now_;
}

void ManualClock::Advance(absl::Duration d) {
  MutexLock lock(&mu_);
  now_ += d;
}

void SleepFor(absl::Duration d) {
  std::this_thread::sleep_for(absl::ToChronoNanoseconds(d));
}

}  // namespace lorikeet
