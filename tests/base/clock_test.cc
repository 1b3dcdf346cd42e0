#include "base/clock.h"

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

TEST(ManualClockTest, StandsStillUntilToldToMove) {
  ManualClock clock;
  const absl::Duration start = clock.Now();
  const absl::Time wall = clock.WallNow();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(absl::Milliseconds(1500));
  EXPECT_EQ(clock.Now() - start, absl::Milliseconds(1500));
  EXPECT_EQ(clock.WallNow() - wall, absl::Milliseconds(1500));
}

TEST(SystemClockTest, NeverGoesBack) {
  SystemClock clock;
  absl::Duration last = clock.Now();
  for (int i = 0; i < 1000; ++i) {
    const absl::Duration now = clock.Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

}  // namespace
}  // namespace lorikeet
