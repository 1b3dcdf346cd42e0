#include "loadgen/report.h"

#include "base/reason.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

LoadResult Answered(size_t task, double due_s) {
  LoadResult result;
  result.task = task;
  result.due = absl::Seconds(due_s);
  result.sent = absl::Seconds(due_s + 0.5);
  result.first_token = absl::Seconds(due_s + 1);
  result.last_token = absl::Seconds(due_s + 2);
  result.end = absl::Seconds(due_s + 2.25);
  result.gaps_s = {0.25f, 0.75f};
  result.prompt_tokens = 10;
  result.cached_tokens = 4;
  result.output_tokens = 3;
  return result;
}

TEST(LoadReportTest, CountsLatencyFromTheDueTime) {
  const LoadReport report = MakeReport({Answered(0, 0)}, 1);
  EXPECT_DOUBLE_EQ(report.all.ttft_s.p50, 1);
  EXPECT_DOUBLE_EQ(report.all.e2e_s.p50, 2.25);
  EXPECT_DOUBLE_EQ(report.all.tpot_s.p50, 0.5);
  EXPECT_DOUBLE_EQ(report.all.itl_s.max, 0.75);
  EXPECT_DOUBLE_EQ(report.send_delay_s.p50, 0.5);
}

TEST(LoadReportTest, CountsFromFirstDueToLastEnd) {
  const LoadReport report = MakeReport({Answered(1, 2.75), Answered(0, 1)}, 2);
  EXPECT_EQ(report.duration, absl::Seconds(4));
  EXPECT_EQ(report.all.output_tokens, 6u);
  EXPECT_EQ(report.all.prompt_tokens, 20u);
  EXPECT_EQ(report.all.cached_tokens, 8u);
  EXPECT_DOUBLE_EQ(report.PerSecond(report.all.output_tokens), 1.5);
}

TEST(LoadReportTest, CountsPeakInFlightBetweenSendingAndEnd) {
  // Sent at 0.5, 1.5, 9.5; ended at 2.25, 3.25, 11.25.
  EXPECT_EQ(MakeReport({Answered(0, 0), Answered(0, 1), Answered(0, 9)}, 1)
                .peak_in_flight,
            2u);
}

TEST(LoadReportTest, KeepsFailuresApart) {
  LoadResult failed = Answered(1, 0);
  failed.status = WithReason(absl::ResourceExhaustedError("queue of 8 is full"),
                             "QUEUE_FULL");
  const LoadReport report = MakeReport({failed, failed, Answered(0, 0)}, 2);
  EXPECT_EQ(report.all.completed, 1u);
  EXPECT_EQ(report.all.failed, 2u);
  EXPECT_EQ(report.per_task[0].completed, 1u);
  EXPECT_EQ(report.per_task[1].failed, 2u);
  EXPECT_EQ(report.per_task[1].ttft_s.count, 0u);
  EXPECT_EQ(report.errors.at("RESOURCE_EXHAUSTED [QUEUE_FULL]"), 2u);
  EXPECT_EQ(report.error_examples.at("RESOURCE_EXHAUSTED [QUEUE_FULL]"),
            "queue of 8 is full");
}

TEST(LoadReportTest, NothingGivesZeros) {
  const LoadReport report = MakeReport({}, 2);
  EXPECT_EQ(report.all.completed, 0u);
  EXPECT_EQ(report.per_task.size(), 2u);
  EXPECT_EQ(report.PerSecond(5), 0);
}

TEST(LoadReportTest, WritesJsonInMilliseconds) {
  const Json json = ReportToJson(MakeReport({Answered(0, 0)}, 1), {"reverse"});
  EXPECT_EQ(json.Find("completed")->AsInt(), 1);
  EXPECT_DOUBLE_EQ(json.Find("ttft_ms")->Find("p99")->AsDouble(), 1000);
  const Json& task = json.Find("tasks")->items().at(0);
  EXPECT_EQ(task.Find("task")->AsString(), "reverse");
  EXPECT_EQ(task.Find("output_tokens")->AsInt(), 3);
}

}  // namespace
}  // namespace lorikeet
