#include "loadgen/lengths.h"

#include <set>

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

TEST(LengthsTest, ParsesOneLength) {
  const absl::StatusOr<Lengths> lengths = Lengths::Parse("128");
  ASSERT_TRUE(lengths.ok()) << lengths.status();
  EXPECT_EQ(lengths->min(), 128u);
  EXPECT_EQ(lengths->max(), 128u);
  EXPECT_EQ(lengths->ToString(), "128");
}

TEST(LengthsTest, ParsesARange) {
  const absl::StatusOr<Lengths> lengths = Lengths::Parse("64-256");
  ASSERT_TRUE(lengths.ok()) << lengths.status();
  EXPECT_EQ(lengths->min(), 64u);
  EXPECT_EQ(lengths->max(), 256u);
  EXPECT_EQ(lengths->ToString(), "64-256");
}

TEST(LengthsTest, RefusesWhatIsNoLength) {
  for (const char* text : {"", "0", "-1", "-", "5-", "-5", "7-3", "0-3", "x",
                           "1-2-3", "99999999999", "1.5", "1-16777217"}) {
    const absl::Status status = Lengths::Parse(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(status.message().find(text), absl::string_view::npos) << text;
  }
}

TEST(LengthsTest, SamplesTheWholeRangeAndNothingElse) {
  const absl::StatusOr<Lengths> lengths = Lengths::Parse("3-6");
  ASSERT_TRUE(lengths.ok());
  Rng rng(1);
  std::set<uint32_t> seen;
  for (int i = 0; i < 200; ++i) seen.insert(lengths->Sample(rng));
  EXPECT_EQ(seen, (std::set<uint32_t>{3, 4, 5, 6}));
}

}  // namespace
}  // namespace lorikeet
