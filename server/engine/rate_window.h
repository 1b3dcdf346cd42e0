// A RateWindow is how much of something happened in the last seconds.
//
// Thread-compatible.

#ifndef LORIKEET_SERVER_ENGINE_RATE_WINDOW_H_
#define LORIKEET_SERVER_ENGINE_RATE_WINDOW_H_

#include <array>
#include <cstdint>

#include "absl/time/time.h"

namespace lorikeet {

class RateWindow {
 public:
  static constexpr int64_t kLengthMs = 5000;

  // Counts `amount` at `now`. REQUIRES: `now` never goes back.
  void Add(absl::Duration now, int64_t amount);
  // Returns what was counted within kLengthMs before `now`, to half a second.
  int64_t Sum(absl::Duration now) const;
  double PerSecond(absl::Duration now) const;

 private:
  static constexpr int64_t kBucketMs = 500;  // ten in kLengthMs
  struct Bucket {
    int64_t number = -1;  // since the clock's origin
    int64_t amount = 0;
  };
  static int64_t BucketNumber(absl::Duration now);

  std::array<Bucket, 10> buckets_;
  int64_t first_ = -1;  // bucket of the first Add
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_RATE_WINDOW_H_
