#include "loadgen/arrivals.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

TEST(PoissonArrivalsTest, NeverGoesBack) {
  PoissonArrivals arrivals(100, 1);
  absl::Duration last = absl::ZeroDuration();
  for (int i = 0; i < 10000; ++i) {
    const absl::Duration next = arrivals.Next();
    ASSERT_GE(next, last);
    last = next;
  }
}

TEST(PoissonArrivalsTest, SameSeedGivesSameTimes) {
  PoissonArrivals a(5, 42);
  PoissonArrivals b(5, 42);
  PoissonArrivals other(5, 43);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const absl::Duration next = a.Next();
    EXPECT_EQ(next, b.Next());
    differs = differs || next != other.Next();
  }
  EXPECT_TRUE(differs);
}

// Gaps of a Poisson process: mean 1/rate, standard deviation 1/rate, and a
// share of exp(-1) longer than the mean.
TEST(PoissonArrivalsTest, GapsAreExponential) {
  constexpr int kCount = 100000;
  constexpr double kRate = 20;
  PoissonArrivals arrivals(kRate, 7);
  double last = 0, sum = 0, squares = 0;
  int longer = 0;
  for (int i = 0; i < kCount; ++i) {
    const double now = absl::ToDoubleSeconds(arrivals.Next());
    const double gap = now - last;
    last = now;
    sum += gap;
    squares += gap * gap;
    longer += gap > 1 / kRate ? 1 : 0;
  }
  const double mean = sum / kCount;
  EXPECT_NEAR(mean * kRate, 1, 0.02);
  EXPECT_NEAR(std::sqrt(squares / kCount - mean * mean) * kRate, 1, 0.03);
  EXPECT_NEAR(static_cast<double>(longer) / kCount, std::exp(-1), 0.01);
}

TEST(PoissonArrivalsTest, InfiniteRateStartsAllAtOnce) {
  PoissonArrivals arrivals(std::numeric_limits<double>::infinity(), 1);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(arrivals.Next(), absl::ZeroDuration());
  }
}

}  // namespace
}  // namespace lorikeet
