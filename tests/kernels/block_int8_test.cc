#include "kernels/block_int8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"
#include "kernels/dtype.h"

namespace lorikeet {
namespace {

std::vector<float> RandomBlock(Rng& rng, double deviation) {
  std::vector<float> block(kInt8Block);
  for (float& x : block) x = static_cast<float>(rng.Normal() * deviation);
  return block;
}

TEST(BlockInt8Test, AWeightIsWithinHalfAStep) {
  Rng rng(1);
  for (const double deviation : {1e-6, 1e-3, 1.0, 1e4}) {
    const std::vector<float> w = RandomBlock(rng, deviation);
    int8_t q[kInt8Block];
    const float scale =
        FloatFromF16(QuantizeWeightBlock(w.data(), kInt8Block, q));
    for (size_t i = 0; i < w.size(); ++i) {
      EXPECT_LE(std::abs(w[i] - scale * q[i]), 0.5001f * scale) << deviation;
    }
  }
}

TEST(BlockInt8Test, TheLargestWeightIsNotCut) {
  Rng rng(2);
  for (int round = 0; round < 1000; ++round) {
    const std::vector<float> w = RandomBlock(rng, 0.02);
    int8_t q[kInt8Block];
    const float scale =
        FloatFromF16(QuantizeWeightBlock(w.data(), kInt8Block, q));
    for (const float x : w) EXPECT_LE(std::abs(x), 127 * scale);
  }
}

TEST(BlockInt8Test, TheLargestFiniteWeightHasAScale) {
  std::vector<float> w(kInt8Block, kInt8MaxWeight);
  int8_t q[kInt8Block];
  EXPECT_EQ(FloatFromF16(QuantizeWeightBlock(w.data(), kInt8Block, q)), 65504);
  EXPECT_EQ(q[5], 127);
}

TEST(BlockInt8Test, ZerosStayZeros) {
  const std::vector<float> zeros(kInt8Block, 0.0f);
  int8_t q[kInt8Block];
  EXPECT_EQ(QuantizeWeightBlock(zeros.data(), kInt8Block, q), 0);
  EXPECT_EQ(QuantizeActivationBlock(zeros.data(), kInt8Block, q), 0);
  for (const int8_t value : q) EXPECT_EQ(value, 0);
}

TEST(BlockInt8Test, WhatIsMissingInABlockIsZero) {
  const std::vector<float> x(kInt8Block, 3.0f);
  int8_t q[kInt8Block];
  QuantizeActivationBlock(x.data(), 5, q);
  EXPECT_EQ(q[4], 127);
  for (int i = 5; i < kInt8Block; ++i) EXPECT_EQ(q[i], 0);
}

TEST(BlockInt8Test, AnActivationIsWithinHalfAStep) {
  Rng rng(3);
  for (const double deviation : {1e-30, 1e-3, 1.0, 1e30}) {
    const std::vector<float> x = RandomBlock(rng, deviation);
    int8_t q[kInt8Block];
    const float scale = QuantizeActivationBlock(x.data(), kInt8Block, q);
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_LE(std::abs(x[i] - scale * q[i]), 0.5001f * scale) << deviation;
    }
  }
}

TEST(BlockInt8Test, ActivationsTooSmallToScaleAreZero) {
  const std::vector<float> x(kInt8Block, 1e-40f);
  int8_t q[kInt8Block];
  EXPECT_EQ(QuantizeActivationBlock(x.data(), kInt8Block, q), 0);
  EXPECT_EQ(q[0], 0);
}

TEST(BlockInt8Test, NanAndInfinityMakeTheScaleNan) {
  for (const float bad :
       {std::nanf(""), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> x(kInt8Block, 1.0f);
    x[7] = bad;
    int8_t q[kInt8Block];
    EXPECT_TRUE(std::isnan(QuantizeActivationBlock(x.data(), kInt8Block, q)));
  }
}

}  // namespace
}  // namespace lorikeet
