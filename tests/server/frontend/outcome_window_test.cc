#include "server/frontend/outcome_window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kWindow = absl::Minutes(5);

TEST(OutcomeWindowTest, CountsWhatEndedWithinTheWindow) {
  OutcomeWindow window;
  window.AddError(absl::Seconds(0));
  window.AddSuccess(absl::Seconds(200), absl::Milliseconds(7));
  window.AddError(absl::Seconds(299));
  OutcomeWindow::Summary sum = window.Sum(absl::Seconds(299), kWindow);
  EXPECT_EQ(sum.requests, 3);
  EXPECT_EQ(sum.errors, 2);
  EXPECT_EQ(sum.latency_p95, absl::Milliseconds(7));
  sum = window.Sum(absl::Seconds(300), kWindow);  // the first is too old
  EXPECT_EQ(sum.requests, 2);
  EXPECT_EQ(sum.errors, 1);
  EXPECT_EQ(window.Sum(absl::Seconds(1000), kWindow).requests, 0);
}

TEST(OutcomeWindowTest, ThePercentileIsTheNearestRankOfSuccesses) {
  OutcomeWindow window;
  for (int i = 1; i <= 100; ++i) {
    window.AddSuccess(absl::Seconds(1), absl::Milliseconds(101 - i));
    window.AddError(absl::Seconds(1));
  }
  EXPECT_EQ(window.Sum(absl::Seconds(1), kWindow).latency_p95,
            absl::Milliseconds(95));
  OutcomeWindow one;
  one.AddSuccess(absl::Seconds(1), absl::Milliseconds(3));
  EXPECT_EQ(one.Sum(absl::Seconds(1), kWindow).latency_p95,
            absl::Milliseconds(3));
  EXPECT_EQ(OutcomeWindow().Sum(absl::Seconds(1), kWindow).latency_p95,
            absl::ZeroDuration());
}

TEST(OutcomeWindowTest, ForgetsTheOldestBeyondItsLimit) {
  OutcomeWindow window;
  window.AddError(absl::Seconds(1));
  for (size_t i = 0; i < OutcomeWindow::kMaxOutcomes; ++i) {
    window.AddSuccess(absl::Seconds(1), absl::ZeroDuration());
  }
  const OutcomeWindow::Summary sum = window.Sum(absl::Seconds(1), kWindow);
  EXPECT_EQ(sum.requests, static_cast<int64_t>(OutcomeWindow::kMaxOutcomes));
  EXPECT_EQ(sum.errors, 0);
}

TEST(BrokenRuleTest, SaysNothingBelowTheNumberOfRequests) {
  const RollbackRule rule{.max_error_rate = 0, .min_requests = 10};
  EXPECT_EQ(BrokenRule(rule, {9, 9, absl::ZeroDuration()}), "");
  EXPECT_NE(BrokenRule(rule, {10, 1, absl::ZeroDuration()}), "");
}

TEST(BrokenRuleTest, NamesTheBoundThatIsBroken) {
  const RollbackRule rule{.max_error_rate = 0.1,
                          .max_latency = absl::Milliseconds(50),
                          .min_requests = 10};
  EXPECT_EQ(BrokenRule(rule, {20, 2, absl::Milliseconds(50)}), "");
  EXPECT_THAT(BrokenRule(rule, {20, 3, absl::ZeroDuration()}),
              HasSubstr("3 of 20 requests failed"));
  EXPECT_THAT(BrokenRule(rule, {20, 0, absl::Milliseconds(51)}),
              HasSubstr("is 51ms over 20 requests, max_latency is 50ms"));
  const RollbackRule any{.max_error_rate = 0.5, .min_requests = 1};
  EXPECT_EQ(BrokenRule(any, {1, 0, absl::Hours(1)}), "");
}

}  // namespace
}  // namespace lorikeet
