#include "adapters/event_log.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/reason.h"

namespace lorikeet {

EventLog::EventLog(uint64_t first_sequence, size_t capacity)
    : first_(first_sequence), capacity_(capacity), last_(first_sequence) {
  CHECK_GE(capacity, 1u);
}

void EventLog::Add(AdapterEvent::Kind kind, AdapterInfo adapter) {
  MutexLock lock(&mu_);
  events_.push_back(AdapterEvent{++last_, kind, std::move(adapter)});
  if (events_.size() > capacity_) events_.pop_front();
  added_.SignalAll();
}

absl::StatusOr<std::vector<AdapterEvent>> EventLog::Wait(
    uint64_t after, absl::Duration timeout) {
  MutexLock lock(&mu_);
  if (after == 0) after = first_;
  if (last_ == after && timeout > absl::ZeroDuration()) {
    added_.WaitFor(&mu_, timeout);
  }
  const uint64_t kept_after = last_ - events_.size();
  if (after < kept_after || after > last_) {
    return WithReason(absl::OutOfRangeError(absl::StrCat(
                          "event ", after, " is not kept, the oldest is ",
                          kept_after + 1, ": start again")),
                      "EVENT_TOO_OLD");
  }
  const auto begin =
      events_.begin() + static_cast<std::ptrdiff_t>(after - kept_after);
  return std::vector<AdapterEvent>(begin, events_.end());
}

uint64_t EventLog::last() {
  MutexLock lock(&mu_);
  return last_;
}

}  // namespace lorikeet
