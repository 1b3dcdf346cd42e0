#include "base/random.h"

#include <array>
#include <cmath>
#include <cstdint>

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

using Counter = std::array<uint32_t, 4>;

// The known answers of philox4x32-10 in the authors' library, Random123
// (kat_vectors).
TEST(PhiloxTest, GivesTheKnownAnswers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                   {0xa4093822, 0x299f31d0}),
            (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, UniformTakes24BitsOfTheFirstWord) {
  EXPECT_EQ(PhiloxUniform(0, 0, 0),
            static_cast<float>(0x6627e8d5 >> 8) * 0x1.0p-24f);
}

TEST(PhiloxTest, UniformDependsOnEachPartOfItsKey) {
  const float base = PhiloxUniform(1, 2, 3);
  EXPECT_EQ(base, PhiloxUniform(1, 2, 3));
  EXPECT_NE(base, PhiloxUniform(2, 2, 3));
  EXPECT_NE(base, PhiloxUniform(1, 3, 3));
  EXPECT_NE(base, PhiloxUniform(1, 2, 4));
  EXPECT_NE(base, PhiloxUniform(uint64_t{1} << 32 | 1, 2, 3));
  EXPECT_NE(base, PhiloxUniform(1, uint64_t{1} << 32 | 2, 3));
  EXPECT_NE(base, PhiloxUniform(1, 2, uint64_t{1} << 32 | 3));
}

TEST(PhiloxTest, UniformIsInRangeAndFlat) {
  constexpr int kDraws = 100'000;
  double sum = 0;
  for (uint64_t i = 0; i < kDraws; ++i) {
    const float u = PhiloxUniform(7, 0, i);
    ASSERT_GE(u, 0.0f);
    ASSERT_LT(u, 1.0f);
    sum += u;
  }
  // Six standard deviations of a mean of uniforms.
  EXPECT_NEAR(sum / kDraws, 0.5, 6 * std::sqrt(1.0 / 12 / kDraws));
}

TEST(RngTest, ASeedGivesOneSequence) {
  Rng a(5), b(5), c(6);
  const uint64_t first = a.NextUint64();
  EXPECT_EQ(first, b.NextUint64());
  EXPECT_NE(first, c.NextUint64());
  EXPECT_NE(first, a.NextUint64());
}

TEST(RngTest, BelowStaysBelow) {
  Rng rng(1);
  std::array<int, 3> seen{};
  for (int i = 0; i < 1000; ++i) ++seen[rng.Below(3)];
  for (const int count : seen) EXPECT_GT(count, 200);
  EXPECT_EQ(rng.Below(1), 0u);
}

TEST(RngTest, NormalHasMeanZeroAndVarianceOne) {
  Rng rng(2);
  constexpr int kDraws = 100'000;
  double sum = 0, sum_of_squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = rng.Normal();
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    sum_of_squares += x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0, 6 / std::sqrt(kDraws));
  EXPECT_NEAR(sum_of_squares / kDraws, 1, 6 * std::sqrt(2.0 / kDraws));
}

}  // namespace
}  // namespace lorikeet
