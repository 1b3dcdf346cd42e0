#include "loadgen/percentiles.h"

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

TEST(PercentilesTest, IsAlwaysOneOfTheValues) {
  const std::vector<double> values = {10, 20, 30, 40};
  EXPECT_EQ(Percentile(values, 0), 10);
  EXPECT_EQ(Percentile(values, 25), 10);
  EXPECT_EQ(Percentile(values, 26), 20);
  EXPECT_EQ(Percentile(values, 50), 20);
  EXPECT_EQ(Percentile(values, 75), 30);
  EXPECT_EQ(Percentile(values, 99), 40);
  EXPECT_EQ(Percentile(values, 100), 40);
}

TEST(PercentilesTest, OneValueIsEveryPercentile) {
  EXPECT_EQ(Percentile({7}, 0), 7);
  EXPECT_EQ(Percentile({7}, 50), 7);
  EXPECT_EQ(Percentile({7}, 100), 7);
}

TEST(PercentilesTest, NoValuesGiveZero) {
  EXPECT_EQ(Percentile({}, 50), 0);
  const Summary summary = Summarize({});
  EXPECT_EQ(summary.count, 0u);
  EXPECT_EQ(summary.mean, 0);
  EXPECT_EQ(summary.p99, 0);
}

TEST(PercentilesTest, SummarizesInAnyOrder) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Summary summary = Summarize(values);
  EXPECT_EQ(summary.count, 100u);
  EXPECT_DOUBLE_EQ(summary.mean, 50.5);
  EXPECT_EQ(summary.min, 1);
  EXPECT_EQ(summary.p50, 50);
  EXPECT_EQ(summary.p90, 90);
  EXPECT_EQ(summary.p99, 99);
  EXPECT_EQ(summary.max, 100);
}

}  // namespace
}  // namespace lorikeet
