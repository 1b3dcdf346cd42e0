// A Clock tells the time; the seam that lets tests run without sleeping.
//
// Thread-safe.

#ifndef LORIKEET_BASE_CLOCK_H_
#define LORIKEET_BASE_CLOCK_H_

#include "absl/time/time.h"
#include "base/mutex.h"

namespace lorikeet {

class Clock {
 public:
  virtual ~Clock() = default;
  // Returns the wall time, for records that people read.
  virtual absl::Time WallNow() const = 0;
  // Returns time since an arbitrary origin; never goes back. For intervals.
  virtual absl::Duration Now() const = 0;
};

// The computer's clocks.
class SystemClock final : public Clock {
 public:
  absl::Time WallNow() const override;
  absl::Duration Now() const override;
};

// Stands still until told to move.
class ManualClock final : public Clock {
 public:
  absl::Time WallNow() const override;
  absl::Duration Now() const override;
  void Advance(absl::Duration d);

 private:
  mutable Mutex mu_;
  absl::Duration now_ ABSL_GUARDED_BY(mu_) = absl::Seconds(1);
};

// Blocks the calling thread. For command-line progress and retry loops only,
// never to wait for another thread.
void SleepFor(absl::Duration d);

}  // namespace lorikeet

#endif  // LORIKEET_BASE_CLOCK_H_
