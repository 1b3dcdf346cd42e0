#include "server/frontend/shadow_traffic.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <optional>
#include <utility>

namespace lorikeet {

// One copy: it has a verdict when both sides have ended.
class ShadowTraffic::Run {
 public:
  explicit Run(std::function<void(ShadowVerdict)> on_verdict)
      : on_verdict_(std::move(on_verdict)) {}

  void Start(std::shared_ptr<TokenStream> stream) {
    stream_ = std::make_shared<WatchedStream>(
        std::move(stream), [this](StreamResult result) {
          Settle(std::nullopt, std::move(result));
        });
    stream_->SetCallback([this] {
      while (stream_->Next().has_value()) {
      }
      stream_->done();  // reports an end by an error
    });
  }
  void SetPrimary(StreamResult result) {
    const bool is_over = !result.status.ok() || result.was_aborted;
    Settle(std::move(result), std::nullopt);
    if (is_over) stream_->Cancel();
  }
  // After it returns nothing of this run happens any more.
  void Stop() {
    // First, so that its cancellation does not count as a failure.
    Settle(StreamResult{absl::CancelledError()}, std::nullopt);
    if (stream_ == nullptr) return;
    stream_->Cancel();
    stream_->SetCallback(nullptr);
  }
  bool is_settled() const {
    MutexLock lock(&mu_);
    return is_settled_;
  }

 private:
  void Settle(std::optional<StreamResult> primary,
              std::optional<StreamResult> shadow) {
    std::optional<ShadowVerdict> verdict;
    {
      MutexLock lock(&mu_);
      if (is_settled_) return;
      if (primary.has_value()) primary_ = std::move(primary);
      if (shadow.has_value()) shadow_ = std::move(shadow);
      verdict = VerdictLocked();
      if (!verdict.has_value()) return;
      is_settled_ = true;
    }
    on_verdict_(*verdict);
  }

  std::optional<ShadowVerdict> VerdictLocked() const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (primary_.has_value() &&
        (!primary_->status.ok() || primary_->was_aborted)) {
      return ShadowVerdict::kSkipped;  // nothing to compare with
    }
    if (!shadow_.has_value()) return std::nullopt;
    if (shadow_->was_aborted) return ShadowVerdict::kSkipped;
    if (!shadow_->status.ok()) return ShadowVerdict::kFailed;
    if (!primary_.has_value()) return std::nullopt;
    return primary_->tokens == shadow_->tokens ? ShadowVerdict::kEqual
                                               : ShadowVerdict::kDifferent;
  }

  const std::function<void(ShadowVerdict)> on_verdict_;
  mutable Mutex mu_;
  bool is_settled_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<StreamResult> primary_ ABSL_GUARDED_BY(mu_);
  std::optional<StreamResult> shadow_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<TokenStream> stream_;  // last: its end settles
};

ShadowTraffic::ShadowTraffic(Engine& engine) : engine_(engine) {}

ShadowTraffic::~ShadowTraffic() {
  std::vector<std::shared_ptr<Run>> runs;
  {
    MutexLock lock(&mu_);
    runs.swap(runs_);
  }
  for (const std::shared_ptr<Run>& run : runs) run->Stop();
}

bool ShadowTraffic::TakePlace(const std::shared_ptr<Run>& run) {
  std::vector<std::shared_ptr<Run>> settled;
  bool has_place = false;
  {
    MutexLock lock(&mu_);
    const auto is_settled = [](const auto& r) { return r->is_settled(); };
    std::ranges::copy_if(runs_, std::back_inserter(settled), is_settled);
    std::erase_if(runs_, is_settled);
    has_place = runs_.size() < kMaxRunning;
    if (has_place) runs_.push_back(run);
  }
  for (const std::shared_ptr<Run>& r : settled) r->Stop();
  return has_place;
}

std::shared_ptr<ShadowTraffic::Run> ShadowTraffic::Start(
    EngineRequest request, std::function<void(ShadowVerdict)> on_verdict) {
  request.priority = std::numeric_limits<int32_t>::max();
  request.is_extra = true;
  request.output = OutputParams();
  request.output.text = false;
  auto run = std::make_shared<Run>(std::move(on_verdict));
  absl::StatusOr<std::shared_ptr<TokenStream>> stream =
      absl::ResourceExhaustedError("too many copies run");
  if (TakePlace(run)) stream = engine_.Submit(std::move(request));
  if (!stream.ok()) {
    run->Stop();  // skipped; its place is free
    return nullptr;
  }
  run->Start(*std::move(stream));
  return run;
}

void ShadowTraffic::Compare(const std::shared_ptr<Run>& run,
                            StreamResult result) {
  run->SetPrimary(std::move(result));
}

}  // namespace lorikeet
