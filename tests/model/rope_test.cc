#include "model/rope.h"

#include <cmath>
#include <numbers>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

TEST(RopeTest, DefaultFrequenciesArePowersOfTheta) {
  RopeConfig rope;
  rope.theta = 10000;
  const std::vector<double> f = RopeInverseFrequencies(rope, 8);
  ASSERT_EQ(f.size(), 4u);
  EXPECT_DOUBLE_EQ(f[0], 1);
  EXPECT_NEAR(f[1], 0.1, 1e-15);
  EXPECT_NEAR(f[2], 0.01, 1e-15);
  EXPECT_NEAR(f[3], 0.001, 1e-15);
}

TEST(RopeTest, LinearDividesByTheFactor) {
  RopeConfig rope;
  rope.kind = RopeConfig::Kind::kLinear;
  rope.factor = 4;
  EXPECT_NEAR(RopeInverseFrequencies(rope, 8)[1], 0.025, 1e-15);
}

TEST(RopeTest, Llama3KeepsShortWavesAndStretchesLongOnes) {
  RopeConfig rope;
  rope.kind = RopeConfig::Kind::kLlama3;
  rope.factor = 8;
  rope.low_freq_factor = 1;
  rope.high_freq_factor = 4;
  rope.original_max_position = 128;
  const std::vector<double> f = RopeInverseFrequencies(rope, 8);
  EXPECT_DOUBLE_EQ(f[0], 1);           // wavelength 6.3 < 128 / 4
  EXPECT_NEAR(f[2], 0.01 / 8, 1e-15);  // wavelength 628 > 128
  const double blend = (128 / (20 * std::numbers::pi) - 1) / 3;  // 62.8
  EXPECT_NEAR(f[1], (1 - blend) * 0.1 / 8 + blend * 0.1, 1e-12);
}

TEST(RopeTest, YarnBlendsByTurns) {
  RopeConfig rope;
  rope.kind = RopeConfig::Kind::kYarn;
  rope.factor = 4;
  rope.original_max_position = 64;
  // With theta 10000 and 32 dimensions: low = floor(-1.98) -> 0,
  // high = ceil(4.03) = 5.
  const std::vector<double> f = RopeInverseFrequencies(rope, 32);
  EXPECT_DOUBLE_EQ(f[0], 1);
  const double f3 = std::pow(10000, -6.0 / 32);
  EXPECT_NEAR(f[3], 0.6 * f3 / 4 + 0.4 * f3, 1e-12);
  EXPECT_NEAR(f[5], std::pow(10000, -10.0 / 32) / 4, 1e-15);
  EXPECT_NEAR(f[15], std::pow(10000, -30.0 / 32) / 4, 1e-15);
}

ModelConfig SmallConfig() {
  ModelConfig config;
  config.head_dim = 4;
  return config;
}

TEST(RopeTableTest, FillsRowsByPosition) {
  RopeTable table(SmallConfig());
  const std::vector<SequenceRows> sequences = {{0, 2, 5, {}}, {2, 3, 3000, {}}};
  std::vector<float> cos(6), sin(6);
  table.Fill(sequences, cos.data(), sin.data());
  const double positions[] = {5, 6, 3000};
  for (size_t row = 0; row < 3; ++row) {
    for (size_t i = 0; i < 2; ++i) {
      const double angle = positions[row] * (i == 0 ? 1 : 0.01);
      EXPECT_NEAR(cos[row * 2 + i], std::cos(angle), 1e-6);
      EXPECT_NEAR(sin[row * 2 + i], std::sin(angle), 1e-6);
    }
  }
}

TEST(RopeTableTest, RowsDoNotDependOnHowTheTableGrew) {
  RopeTable once(SmallConfig()), often(SmallConfig());
  std::vector<float> cos_a(2), sin_a(2), cos_b(2), sin_b(2);
  for (const int32_t position : {0, 1023, 1024, 4000, 9000}) {
    const std::vector<SequenceRows> s = {{0, 1, position, {}}};
    often.Fill(s, cos_a.data(), sin_a.data());
  }
  const std::vector<SequenceRows> s = {{0, 1, 9000, {}}};
  once.Fill(s, cos_b.data(), sin_b.data());
  EXPECT_EQ(cos_a, cos_b);
  EXPECT_EQ(sin_a, sin_b);
}

TEST(RopeTableTest, MultipliesByTheAttentionFactor) {
  ModelConfig config = SmallConfig();
  config.rope.attention_factor = 2;
  RopeTable table(config);
  std::vector<float> cos(2), sin(2);
  const std::vector<SequenceRows> s = {{0, 1, 0, {}}};
  table.Fill(s, cos.data(), sin.data());
  EXPECT_EQ(cos[0], 2);
  EXPECT_EQ(sin[0], 0);
}

}  // namespace
}  // namespace lorikeet
