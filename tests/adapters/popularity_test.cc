#include "adapters/popularity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/adapters/test_adapter.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::Key;

constexpr absl::Duration kStart = absl::Seconds(1000);

TEST(PopularityTest, ARequestIsHalfForgottenAfterAHalfLife) {
  Popularity popularity;
  EXPECT_EQ(popularity.Of(Key("a"), kStart), 0);
  popularity.Count(Key("a"), kStart);
  popularity.Count(Key("a"), kStart);
  EXPECT_EQ(popularity.Of(Key("a"), kStart), 2);
  EXPECT_EQ(popularity.Of(Key("a"), kStart + Popularity::kHalfLife), 1);
  popularity.Count(Key("a"), kStart + Popularity::kHalfLife);
  EXPECT_EQ(popularity.Of(Key("a"), kStart + Popularity::kHalfLife), 2);
}

TEST(PopularityTest, TopIsByRecentRequests) {
  Popularity popularity;
  for (int i = 0; i < 5; ++i) popularity.Count(Key("old"), kStart);
  const absl::Duration later = kStart + 2 * Popularity::kHalfLife;
  for (int i = 0; i < 2; ++i) popularity.Count(Key("new"), later);
  for (int i = 0; i < 3; ++i) popularity.Count(Key("newer"), later);
  EXPECT_THAT(popularity.Top(2, later), ElementsAre(Key("newer"), Key("new")));
  EXPECT_THAT(popularity.Top(9, later),
              ElementsAre(Key("newer"), Key("new"), Key("old")));
  // Nobody is popular for ever.
  EXPECT_THAT(popularity.Top(9, later + 3 * Popularity::kHalfLife), IsEmpty());
}

TEST(PopularityTest, ForgetsWhenTold) {
  Popularity popularity;
  popularity.Count(Key("a"), kStart);
  popularity.Forget(Key("a"));
  EXPECT_THAT(popularity.Top(9, kStart), IsEmpty());
}

TEST(PopularityTest, ForgetsTheLeastPopularBeyondItsLimit) {
  Popularity popularity;
  for (int i = 0; i < 100; ++i) popularity.Count(Key("much"), kStart);
  for (size_t i = 0; i < 2 * Popularity::kMaxKeys; ++i) {
    popularity.Count(Key(absl::StrCat("k", i)), kStart);
  }
  EXPECT_LE(popularity.Top(3 * Popularity::kMaxKeys, kStart).size(),
            Popularity::kMaxKeys);
  EXPECT_EQ(popularity.Of(Key("much"), kStart), 100);
}

}  // namespace
}  // namespace lorikeet
