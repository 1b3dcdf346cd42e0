#include "loadgen/popularity.h"

#include <cmath>

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

std::vector<int> Count(AdapterPicker& picker, size_t num_adapters, int picks) {
  std::vector<int> counts(num_adapters);
  for (int i = 0; i < picks; ++i) ++counts.at(picker.Next());
  return counts;
}

TEST(AdapterPickerTest, IdenticalAlwaysTakesTheFirst) {
  AdapterPicker picker(Popularity::kIdentical, 5, 1, 3);
  EXPECT_EQ(Count(picker, 5, 100), (std::vector<int>{100, 0, 0, 0, 0}));
}

TEST(AdapterPickerTest, DistinctTakesThemInTurn) {
  AdapterPicker picker(Popularity::kDistinct, 3, 1, 3);
  std::vector<size_t> picks;
  for (int i = 0; i < 7; ++i) picks.push_back(picker.Next());
  EXPECT_EQ(picks, (std::vector<size_t>{0, 1, 2, 0, 1, 2, 0}));
}

TEST(AdapterPickerTest, UniformTakesAllAlike) {
  AdapterPicker picker(Popularity::kUniform, 4, 1, 3);
  for (const int count : Count(picker, 4, 40000))
    EXPECT_NEAR(count, 10000, 400);
}

TEST(AdapterPickerTest, ZipfFollowsItsExponent) {
  constexpr double kS = 1.2;
  constexpr int kPicks = 100000;
  AdapterPicker picker(Popularity::kZipf, 8, kS, 3);
  const std::vector<int> counts = Count(picker, 8, kPicks);
  double sum = 0;
  for (int k = 1; k <= 8; ++k) sum += std::pow(k, -kS);
  for (int k = 1; k <= 8; ++k) {
    EXPECT_NEAR(static_cast<double>(counts[k - 1]) / kPicks,
                std::pow(k, -kS) / sum, 0.01)
        << k;
  }
}

TEST(AdapterPickerTest, ZipfWithExponentZeroIsUniform) {
  AdapterPicker picker(Popularity::kZipf, 4, 0, 3);
  for (const int count : Count(picker, 4, 40000))
    EXPECT_NEAR(count, 10000, 400);
}

TEST(AdapterPickerTest, OneAdapterIsTakenByAllKinds) {
  for (const Popularity kind : {Popularity::kIdentical, Popularity::kUniform,
                                Popularity::kZipf, Popularity::kDistinct}) {
    AdapterPicker picker(kind, 1, 1, 3);
    EXPECT_EQ(Count(picker, 1, 10), (std::vector<int>{10}));
  }
}

}  // namespace
}  // namespace lorikeet
