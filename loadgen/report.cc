#include "loadgen/report.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/reason.h"

namespace lorikeet {
namespace {

double Seconds(absl::Duration d) { return absl::ToDoubleSeconds(d); }

LoadFigures MakeFigures(const std::vector<const LoadResult*>& results) {
  LoadFigures figures;
  std::vector<double> ttft, itl, tpot, e2e;
  for (const LoadResult* result : results) {
    if (!result->status.ok()) {
      ++figures.failed;
      continue;
    }
    ++figures.completed;
    figures.prompt_tokens += result->prompt_tokens;
    figures.cached_tokens += result->cached_tokens;
    figures.output_tokens += result->output_tokens;
    e2e.push_back(Seconds(result->end - result->due));
    if (result->output_tokens == 0) continue;
    ttft.push_back(Seconds(result->first_token - result->due));
    itl.insert(itl.end(), result->gaps_s.begin(), result->gaps_s.end());
    if (result->output_tokens < 2) continue;
    tpot.push_back(Seconds(result->last_token - result->first_token) /
                   (result->output_tokens - 1));
  }
  figures.ttft_s = Summarize(std::move(ttft));
  figures.itl_s = Summarize(std::move(itl));
  figures.tpot_s = Summarize(std::move(tpot));
  figures.e2e_s = Summarize(std::move(e2e));
  return figures;
}

// Most requests that overlapped, between sending and end.
uint32_t PeakInFlight(const std::vector<LoadResult>& results) {
  std::vector<std::pair<absl::Duration, int>> changes;
  for (const LoadResult& result : results) {
    changes.emplace_back(result.sent, 1);
    changes.emplace_back(result.end, -1);
  }
  std::sort(changes.begin(), changes.end());
  int now = 0;
  int peak = 0;
  for (const auto& [time, change] : changes) {
    now += change;
    peak = std::max(peak, now);
  }
  return static_cast<uint32_t>(peak);
}

Json SummaryToJson(const Summary& summary) {
  Json out = Json::Object();
  out.Set("count", static_cast<uint64_t>(summary.count));
  out.Set("mean", summary.mean * 1e3);
  out.Set("min", summary.min * 1e3);
  out.Set("p50", summary.p50 * 1e3);
  out.Set("p90", summary.p90 * 1e3);
  out.Set("p99", summary.p99 * 1e3);
  out.Set("max", summary.max * 1e3);
  return out;
}

void SetFigures(const LoadReport& report, const LoadFigures& figures,
                Json* out) {
  out->Set("completed", figures.completed);
  out->Set("failed", figures.failed);
  out->Set("prompt_tokens", figures.prompt_tokens);
  out->Set("cached_tokens", figures.cached_tokens);
  out->Set("output_tokens", figures.output_tokens);
  out->Set("requests_per_second", report.PerSecond(figures.completed));
  out->Set("output_tokens_per_second", report.PerSecond(figures.output_tokens));
  out->Set("total_tokens_per_second",
           report.PerSecond(figures.prompt_tokens + figures.output_tokens));
  out->Set("ttft_ms", SummaryToJson(figures.ttft_s));
  out->Set("itl_ms", SummaryToJson(figures.itl_s));
  out->Set("tpot_ms", SummaryToJson(figures.tpot_s));
  out->Set("e2e_ms", SummaryToJson(figures.e2e_s));
}

}  // namespace

LoadReport MakeReport(const std::vector<LoadResult>& results,
                      size_t num_tasks) {
  LoadReport report;
  if (results.empty()) {
    report.per_task.resize(num_tasks);
    return report;
  }
  std::vector<const LoadResult*> all;
  std::vector<std::vector<const LoadResult*>> per_task(num_tasks);
  std::vector<double> delays;
  absl::Duration begin = absl::InfiniteDuration();
  absl::Duration end = absl::ZeroDuration();
  for (const LoadResult& result : results) {
    CHECK_LT(result.task, num_tasks);
    all.push_back(&result);
    per_task[result.task].push_back(&result);
    delays.push_back(Seconds(result.sent - result.due));
    begin = std::min(begin, result.due);
    end = std::max(end, result.end);
    if (result.status.ok()) continue;
    const std::string reason = ReasonOf(result.status);
    const std::string key =
        absl::StrCat(absl::StatusCodeToString(result.status.code()),
                     reason.empty() ? "" : absl::StrCat(" [", reason, "]"));
    ++report.errors[key];
    report.error_examples.emplace(key, std::string(result.status.message()));
  }
  report.duration = end - begin;
  report.all = MakeFigures(all);
  for (const auto& some : per_task) {
    report.per_task.push_back(MakeFigures(some));
  }
  report.send_delay_s = Summarize(std::move(delays));
  report.peak_in_flight = PeakInFlight(results);
  return report;
}

Json ReportToJson(const LoadReport& report,
                  const std::vector<std::string>& task_names) {
  CHECK_EQ(task_names.size(), report.per_task.size());
  Json out = Json::Object();
  out.Set("duration_s", Seconds(report.duration));
  SetFigures(report, report.all, &out);
  out.Set("send_delay_ms", SummaryToJson(report.send_delay_s));
  out.Set("peak_in_flight", report.peak_in_flight);
  Json errors = Json::Object();
  for (const auto& [key, count] : report.errors) errors.Set(key, count);
  out.Set("errors", std::move(errors));
  Json tasks = Json::Array();
  for (size_t i = 0; i < task_names.size(); ++i) {
    Json task = Json::Object();
    task.Set("task", task_names[i]);
    SetFigures(report, report.per_task[i], &task);
    tasks.Append(std::move(task));
  }
  out.Set("tasks", std::move(tasks));
  return out;
}

}  // namespace lorikeet
