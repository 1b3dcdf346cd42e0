// The small parts of the engine: rates, counts, domains, hints.

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/kv_domain.h"
#include "server/engine/rate_window.h"
#include "server/engine/retry_after.h"
#include "server/engine/token_counts.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

TEST(RateWindowTest, CountsTheLastSecondsOnly) {
  RateWindow window;
  window.Add(absl::Seconds(10), 100);
  window.Add(absl::Seconds(12), 20);
  EXPECT_EQ(window.Sum(absl::Seconds(12)), 120);
  EXPECT_EQ(window.Sum(absl::Seconds(16)), 20);
  EXPECT_EQ(window.Sum(absl::Seconds(60)), 0);
}

TEST(RateWindowTest, DividesByTheTimeThatHasPassed) {
  RateWindow window;
  EXPECT_EQ(window.PerSecond(absl::Seconds(10)), 0);
  window.Add(absl::Seconds(10), 100);
  EXPECT_DOUBLE_EQ(window.PerSecond(absl::Seconds(12)), 50);
  window.Add(absl::Seconds(20), 100);
  EXPECT_DOUBLE_EQ(window.PerSecond(absl::Seconds(20)), 20);
}

TEST(TokenCountsTest, CountsTheOutputAndKnowsThePrompt) {
  TokenCounts counts;
  const std::vector<Token> prompt = {5, 6, 5};
  counts.AddPrompt(prompt);
  counts.AddOutput(6);
  counts.AddOutput(9);
  counts.AddOutput(9);
  EXPECT_THAT(counts.counts(), ElementsAre(Pair(5, 0), Pair(6, 1), Pair(9, 2)));
}

TEST(KvDomainTest, DiffersWithAllThatMakesKvDiffer) {
  const Digest base = DigestOf("base"), adapter = DigestOf("adapter");
  const KvDomain d = MakeKvDomain("t", base, &adapter, DType::kF32);
  EXPECT_EQ(d, MakeKvDomain("t", base, &adapter, DType::kF32));
  EXPECT_NE(d, MakeKvDomain("u", base, &adapter, DType::kF32));
  EXPECT_NE(d, MakeKvDomain("t", adapter, &adapter, DType::kF32));
  EXPECT_NE(d, MakeKvDomain("t", base, &base, DType::kF32));
  EXPECT_NE(d, MakeKvDomain("t", base, nullptr, DType::kF32));
  EXPECT_NE(d, MakeKvDomain("t", base, &adapter, DType::kBF16));
}

TEST(RetryAfterTest, RidesAlongWithAStatus) {
  const absl::Status status =
      WithRetryAfter(absl::UnavailableError("x"), absl::Milliseconds(1500));
  EXPECT_EQ(RetryAfterOf(status), absl::Milliseconds(1500));
  EXPECT_EQ(RetryAfterOf(absl::UnavailableError("x")), std::nullopt);
}

}  // namespace
}  // namespace lorikeet
