#include "loadgen/workload.h"

#include <algorithm>

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

WorkloadOptions SmallOptions() {
  WorkloadOptions options;
  options.tasks = {{"a", {}}, {"b", {}}};
  options.alphabet = {5, 6, 7};
  options.prompt_tokens = *Lengths::Parse("2-9");
  options.output_tokens = *Lengths::Parse("1-4");
  options.num_requests = 50;
  options.seed = 11;
  return options;
}

std::vector<LoadRequest> All(const WorkloadOptions& options) {
  Workload workload(options);
  std::vector<LoadRequest> requests;
  while (std::optional<LoadRequest> request =
             workload.Next(absl::ZeroDuration())) {
    requests.push_back(*std::move(request));
  }
  return requests;
}

TEST(WorkloadTest, MakesRandomPromptsOfTheAlphabet) {
  const std::vector<LoadRequest> requests = All(SmallOptions());
  ASSERT_EQ(requests.size(), 50u);
  for (const LoadRequest& request : requests) {
    EXPECT_GE(request.token_ids.size(), 2u);
    EXPECT_LE(request.token_ids.size(), 9u);
    EXPECT_TRUE(std::all_of(request.token_ids.begin(), request.token_ids.end(),
                            [](uint32_t id) { return id >= 5 && id <= 7; }));
    EXPECT_GE(request.max_tokens, 1u);
    EXPECT_LE(request.max_tokens, 4u);
    EXPECT_TRUE(request.ignore_eos);
    EXPECT_TRUE(request.text.empty());
    EXPECT_FALSE(request.start.has_value());
  }
}

TEST(WorkloadTest, SameSeedMakesSameRequests) {
  const std::vector<LoadRequest> a = All(SmallOptions());
  const std::vector<LoadRequest> b = All(SmallOptions());
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].task, b[i].task);
    EXPECT_EQ(a[i].token_ids, b[i].token_ids);
    EXPECT_EQ(a[i].max_tokens, b[i].max_tokens);
  }
}

TEST(WorkloadTest, OtherRateKeepsThePrompts) {
  WorkloadOptions open = SmallOptions();
  open.requests_per_second = 10;
  const std::vector<LoadRequest> a = All(SmallOptions());
  const std::vector<LoadRequest> b = All(open);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].token_ids, b[i].token_ids);
    EXPECT_TRUE(b[i].start.has_value());
  }
}

TEST(WorkloadTest, OpenLoopEndsWithTheDuration) {
  WorkloadOptions options = SmallOptions();
  options.num_requests = 0;
  options.requests_per_second = 100;
  options.duration = absl::Seconds(2);
  const std::vector<LoadRequest> requests = All(options);
  EXPECT_NEAR(static_cast<double>(requests.size()), 200, 60);
  for (const LoadRequest& request : requests) {
    EXPECT_LT(*request.start, absl::Seconds(2));
  }
}

TEST(WorkloadTest, ClosedLoopEndsWithTheDuration) {
  WorkloadOptions options = SmallOptions();
  options.num_requests = 0;
  options.duration = absl::Seconds(2);
  Workload workload(options);
  EXPECT_TRUE(workload.Next(absl::Seconds(1.9)).has_value());
  EXPECT_FALSE(workload.Next(absl::Seconds(2)).has_value());
}

TEST(WorkloadTest, TakesPromptsOfTheTask) {
  WorkloadOptions options = SmallOptions();
  options.popularity = Popularity::kDistinct;
  options.tasks = {{"a", {{"one", 3}}}, {"b", {{"two", 5}}}};
  options.alphabet.clear();
  const std::vector<LoadRequest> requests = All(options);
  EXPECT_EQ(requests[0].text, "one");
  EXPECT_EQ(requests[0].max_tokens, 3u);
  EXPECT_EQ(requests[1].text, "two");
  EXPECT_EQ(requests[1].max_tokens, 5u);
  EXPECT_FALSE(requests[0].ignore_eos);
}

}  // namespace
}  // namespace lorikeet
