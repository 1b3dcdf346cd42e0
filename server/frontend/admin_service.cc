#include "server/frontend/admin_service.h"

#include <algorithm>
#include <utility>

#include "base/reason.h"

namespace lorikeet {
namespace {

// A drain waits in pieces, to notice that its caller went away.
constexpr absl::Duration kDrainPiece = absl::Milliseconds(100);

}  // namespace

AdminService::AdminService(const ModelInfo& model, AdapterStore& adapters,
                           Engine& engine, BaseVerifier& verifier,
                           const Clock& clock, absl::Duration drain_timeout)
    : model_(model),
      adapters_(adapters),
      engine_(engine),
      verifier_(verifier),
      clock_(clock),
      drain_timeout_(drain_timeout),
      start_(clock.Now()) {}

absl::Duration AdminService::Uptime() const { return clock_.Now() - start_; }

ServerLoad AdminService::Load() const {
  return {engine_.load(), adapters_.GetResidency()};
}

void AdminService::SetDrainCallback(std::function<void()> callback) {
  MutexLock lock(&mu_);
  drain_callback_ = std::move(callback);
}

absl::StatusOr<BaseVerifier::Report> AdminService::VerifyBase() {
  absl::StatusOr<BaseVerifier::Report> report = verifier_.Verify();
  if (report.ok()) return report;
  return WithDefaultReason(report.status(), "BASE_UNREADABLE");
}

int64_t AdminService::Drain(std::optional<absl::Duration> timeout,
                            const std::function<bool()>& cancelled) {
  {
    MutexLock lock(&mu_);
    if (drain_callback_) drain_callback_();
  }
  const absl::Duration deadline =
      clock_.Now() + timeout.value_or(drain_timeout_);
  while (true) {
    const absl::Duration left = deadline - clock_.Now();
    const int64_t remaining =
        engine_.Drain(std::clamp(left, absl::ZeroDuration(), kDrainPiece));
    if (remaining == 0 || left <= kDrainPiece) return remaining;
    if (cancelled && cancelled()) return remaining;
  }
}

}  // namespace lorikeet
