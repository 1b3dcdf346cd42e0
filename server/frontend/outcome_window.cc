#include "server/frontend/outcome_window.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

namespace lorikeet {

void OutcomeWindow::AddSuccess(absl::Duration now, absl::Duration latency) {
  Add({now, false, latency});
}

void OutcomeWindow::AddError(absl::Duration now) {
  Add({now, true, absl::ZeroDuration()});
}

void OutcomeWindow::Add(Outcome outcome) {
  outcomes_.push_back(outcome);
  if (outcomes_.size() > kMaxOutcomes) outcomes_.pop_front();
}

OutcomeWindow::Summary OutcomeWindow::Sum(absl::Duration now,
                                          absl::Duration window) const {
  Summary sum;
  std::vector<absl::Duration> latencies;
  for (auto it = outcomes_.rbegin(); it != outcomes_.rend(); ++it) {
    if (it->time <= now - window) break;
    ++sum.requests;
    sum.errors += it->is_error;
    if (!it->is_error) latencies.push_back(it->latency);
  }
  if (latencies.empty()) return sum;
  // Nearest rank: the smallest that 95 of 100 do not exceed.
  const size_t rank = (latencies.size() * 95 + 99) / 100;
  const auto nth = latencies.begin() + static_cast<std::ptrdiff_t>(rank - 1);
  std::nth_element(latencies.begin(), nth, latencies.end());
  sum.latency_p95 = *nth;
  return sum;
}

std::string BrokenRule(const RollbackRule& rule,
                       const OutcomeWindow::Summary& s) {
  if (s.requests < rule.min_requests) return "";
  const double rate =
      static_cast<double>(s.errors) / static_cast<double>(s.requests);
  if (rate > rule.max_error_rate) {
    return absl::StrCat(s.errors, " of ", s.requests, " requests failed in ",
                        absl::FormatDuration(rule.window),
                        ", max_error_rate is ", rule.max_error_rate);
  }
  if (s.latency_p95 > rule.max_latency) {
    return absl::StrCat("95th percentile of the time to the first token is ",
                        absl::FormatDuration(s.latency_p95), " over ",
                        s.requests, " requests, max_latency is ",
                        absl::FormatDuration(rule.max_latency));
  }
  return "";
}

}  // namespace lorikeet
