#include "train/schedule.h"

#include <gtest/gtest.h>

namespace lorikeet {
namespace {

TEST(ScheduleTest, WarmsUpInALineAndReachesThePeak) {
  const Schedule schedule{0.4, 20, 4, Schedule::Decay::kCosine};
  EXPECT_DOUBLE_EQ(schedule.At(1), 0.1);
  EXPECT_DOUBLE_EQ(schedule.At(4), 0.4);
  EXPECT_LT(schedule.At(5), 0.4);
}

TEST(ScheduleTest, WithoutWarmUpTheFirstStepIsNearThePeak) {
  const Schedule schedule{1, 9, 0, Schedule::Decay::kLinear};
  EXPECT_DOUBLE_EQ(schedule.At(1), 0.9);
  EXPECT_DOUBLE_EQ(schedule.At(9), 0.1);
}

TEST(ScheduleTest, NoStepHasRateZeroAndRatesFallAfterWarmUp) {
  for (const auto decay :
       {Schedule::Decay::kLinear, Schedule::Decay::kCosine}) {
    const Schedule schedule{1, 50, 5, decay};
    for (int64_t step = 1; step <= 50; ++step) {
      EXPECT_GT(schedule.At(step), 0) << step;
      if (step <= 5) continue;
      EXPECT_LT(schedule.At(step), schedule.At(step - 1)) << step;
    }
  }
}

TEST(ScheduleTest, OneStepHasARate) {
  EXPECT_GT((Schedule{1, 1, 0, Schedule::Decay::kCosine}.At(1)), 0);
}

}  // namespace
}  // namespace lorikeet
