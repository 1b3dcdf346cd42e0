#include "server/grpc/periodic_call.h"

#include <utility>

#include "server/grpc/status_details.h"

namespace lorikeet {

grpc::ServerWriteReactor<grpc::ByteBuffer>* PeriodicCall::Start(
    const absl::StatusOr<absl::Duration>& interval, Source source) {
  const auto call = std::make_shared<PeriodicCall>(std::move(source));
  call->self_ = call;
  MutexLock lock(&call->mu_);
  if (!interval.ok()) {
    call->EndLocked(interval.status());
  } else {
    call->interval_ = *interval;
    call->WriteLocked();
  }
  return call.get();
}

void PeriodicCall::OnWriteDone(bool ok) {
  MutexLock lock(&mu_);
  if (ended_) return;
  if (!ok) {
    EndLocked(absl::CancelledError("the caller went away"));
    return;
  }
  if (is_last_) {
    EndLocked(absl::OkStatus());
    return;
  }
  const gpr_timespec at = gpr_time_add(
      gpr_now(GPR_CLOCK_MONOTONIC),
      gpr_time_from_millis(absl::ToInt64Milliseconds(interval_), GPR_TIMESPAN));
  // Weak: the alarm keeps its callback, and this keeps the alarm.
  alarm_.Set(at, [weak = weak_from_this()](bool fired) {
    const std::shared_ptr<PeriodicCall> self = weak.lock();
    if (self == nullptr) return;
    MutexLock alarm_lock(&self->mu_);
    if (fired && !self->ended_) self->WriteLocked();
  });
}

void PeriodicCall::OnCancel() {
  MutexLock lock(&mu_);
  EndLocked(absl::CancelledError("the caller cancelled"));
}

void PeriodicCall::OnDone() {
  const std::shared_ptr<PeriodicCall> self = std::move(self_);
  alarm_.Cancel();
}

void PeriodicCall::WriteLocked() {
  absl::StatusOr<Next> next = source_();
  if (!next.ok()) {
    EndLocked(next.status());
    return;
  }
  message_ = std::move(next->message);
  is_last_ = next->is_last;
  StartWrite(&message_);
}

void PeriodicCall::EndLocked(const absl::Status& status) {
  if (ended_) return;
  ended_ = true;
  Finish(ToGrpcStatus(status));
}

}  // namespace lorikeet
