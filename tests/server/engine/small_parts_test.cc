// The small parts of the engine: rates, counts, domains, hints.

#include <iterator>
#include <set>
#include <vector>

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
  const auto make = [&](absl::string_view tenant, const Digest& of,
                        std::vector<KvAdapter> adapters, int32_t from = 0,
                        DType dtype = DType::kF32,
                        Variant variant = Variant::kUnmerged) {
    return MakeKvDomain(tenant, of, adapters, from, variant, dtype);
  };
  const std::vector<KvAdapter> two = {{adapter, 1}, {base, 0.5f}};
  const KvDomain all[] = {
      make("t", base, {{adapter, 1}}),
      make("u", base, {{adapter, 1}}),
      make("t", adapter, {{adapter, 1}}),
      make("t", base, {{base, 1}}),
      make("t", base, {{adapter, 0.5f}}),
      make("t", base, {{adapter, -1}}),
      make("t", base, {}),
      make("t", base, {{adapter, 1}}, 3),
      make("t", base, two),
      make("t", base, {two[1], two[0]}),
      make("t", base, {{adapter, 1}}, 0, DType::kBF16),
      make("t", base, {{adapter, 1}}, 0, DType::kF32, Variant::kMerged)};
  EXPECT_EQ(std::set<KvDomain>(std::begin(all), std::end(all)).size(),
            std::size(all));
  EXPECT_EQ(make("t", base, two), make("t", base, two));
}

TEST(RetryAfterTest, RidesAlongWithAStatus) {
  const absl::Status status =
      WithRetryAfter(absl::UnavailableError("x"), absl::Milliseconds(1500));
  EXPECT_EQ(RetryAfterOf(status), absl::Milliseconds(1500));
  EXPECT_EQ(RetryAfterOf(absl::UnavailableError("x")), std::nullopt);
}

}  // namespace
}  // namespace lorikeet
