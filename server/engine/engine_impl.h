// The engine: a facade for other threads, and the thread that runs the steps.
// What happens in a step is in engine.cc, what happens to requests in
// engine_requests.cc, which variant they get in engine_merging.cc.

#ifndef LORIKEET_SERVER_ENGINE_ENGINE_IMPL_H_
#define LORIKEET_SERVER_ENGINE_ENGINE_IMPL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/base_weights.h"
#include "base/background_queue.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/mutex.h"
#include "server/engine/adapter_residency.h"
#include "server/engine/batch_builder.h"
#include "server/engine/engine.h"
#include "server/engine/inbox.h"
#include "server/engine/merged_residency.h"
#include "server/engine/model_runner.h"
#include "server/engine/rate_window.h"
#include "server/engine/request_state.h"
#include "server/engine/step_cost_probe.h"
#include "server/scheduler/scheduler.h"

namespace lorikeet {

class EngineImpl final : public Engine {
 public:
  // What the engine has to know of the model behind the runner.
  struct ModelFacts {
    int64_t vocab_size = 0;
    Digest fingerprint;
    int64_t num_blocks = 0;
    int64_t block_size = 0;
    // To merge with; null: nothing can be merged.
    std::optional<BaseWeights> weights;
    Ops* ops = nullptr;
  };

  // `options` has no default left open. All references and `tokenizer`, which
  // may be null, must outlive this. Starts the thread.
  EngineImpl(std::unique_ptr<ModelRunner> runner, const ModelFacts& model,
             const Tokenizer* tokenizer, AdapterStore& adapters,
             const Clock& clock, const EngineOptions& options);
  ~EngineImpl() override;

  absl::StatusOr<std::shared_ptr<TokenStream>> Submit(
      EngineRequest request) override;
  int64_t Drain(absl::Duration timeout) override;
  void AbortAdapter(const std::string& tenant,
                    const std::string& name) override;
  void AbortAll() override;
  int64_t FlushPrefixCache() override;
  int64_t DropMerged(const std::string& tenant,
                     const std::string& name) override;
  MergeState merge_state() override;
  EngineLoad load() const override;
  const EngineOptions& options() const override { return options_; }
  void WaitUntilIdle() override;
  void SetHeld(bool held) override { inbox_->SetHeld(held); }
  void SetGapWork(GapWork* work) override;
  void Wake() override { inbox_->Wake(); }

 private:
  // ---- any thread ----------------------------------------------------------
  absl::Status CheckRequest(const EngineRequest& request) const;
  absl::Status CheckVariant(const EngineRequest& request) const;

  // ---- engine thread: steps (engine.cc) ------------------------------------
  void Loop();
  void Step();
  void WaitForWork();
  void FailStep(const absl::Status& status);
  StepPlan Plan(absl::Duration now);
  // Distributes what the step gave; returns what the scheduler must know.
  std::vector<SampledToken> TakeResult(StepResult result, absl::Duration now);
  void UpdateLoad(absl::Duration now);

  // ---- engine thread: requests (engine_requests.cc) ------------------------
  bool DrainInbox();  // false: the thread has to end
  void Add(std::unique_ptr<RequestState> request);
  // Hands a request whose variant is settled to the scheduler.
  void Admit(RequestState* request);
  std::vector<KvDomainStart> DomainsOf(const RequestState& request) const;
  void NoteAdapters(absl::Duration now);
  void NoteStarts(const StepPlan& plan, absl::Duration now);
  void Publish(absl::Duration now);
  void PublishRequest(RequestState* request, absl::Duration now);
  static StartedEvent MakeStarted(RequestState* request);
  void UpdatePause(RequestState* request, absl::Duration now);
  void EndSlowReaders(absl::Duration now);
  // Ends with an error.
  void Fail(RequestId id, const absl::Status& status);
  void FailAdapter(const AdapterKey& key, const absl::Status& status);
  // Ends with FinishReason::kAbort.
  void Abort(RequestId id);
  // Lets go of all that `request` holds, then tells its reader.
  void Forget(RequestState* request, std::vector<StreamEvent> last_events,
              const absl::Status& status);
  std::vector<RequestId> AllIds() const;

  // ---- engine thread: variants (engine_merging.cc) -------------------------
  Variant ChooseVariant(const RequestState& request);
  Variant ChooseByCost(const RequestState& request);
  // Admits who waited for a merged variant that is there now.
  void AdmitMerged();
  void FailMerges();
  void LeaveMergeLine(RequestState* request);
  // Merges and measures for about `budget`; false: there is nothing to do.
  bool WorkBetweenSteps(absl::Duration budget, bool is_idle);
  bool WorkInGap();
  bool MeasureCosts(bool is_idle);
  // The next piece; the costs with the last one.
  absl::StatusOr<std::optional<StepCosts>> MeasurePiece();
  void ObserveRows(const StepPlan& plan, absl::Duration now);

  const EngineOptions options_;
  const ModelFacts model_;
  const Tokenizer* const tokenizer_;
  AdapterStore& adapters_;
  const Clock& clock_;
  const std::shared_ptr<Inbox> inbox_;
  std::atomic<int64_t> next_id_{1};

  // Engine thread only.
  const std::unique_ptr<ModelRunner> runner_;
  const std::unique_ptr<Scheduler> scheduler_;
  AdapterResidency residency_;
  BatchBuilder builder_;
  RequestTable requests_;
  std::unique_ptr<MergedResidency> merged_;  // null: nothing is merged
  GapWork* gap_work_ = nullptr;
  std::unique_ptr<StepCostProbe> probe_;  // null: nothing is measured now
  MergeChooser chooser_;
  bool uses_auto_ = false;
  std::optional<absl::Duration> measured_;  // when
  std::vector<RequestState*> merge_line_;   // wait for their variants
  bool merge_line_changed_ = false;
  Inbox::Mail mail_;
  std::vector<RequestState*> touched_;  // by the step being published
  std::vector<RequestState*> cold_;     // waiting, their adapters are not there
  std::vector<RequestId> paused_;       // their streams are full
  RateWindow generated_, prompt_tokens_, cached_tokens_;
  SchedulerLoad last_load_;

  mutable Mutex load_mu_;
  EngineLoad load_ ABSL_GUARDED_BY(load_mu_);

  std::unique_ptr<BackgroundThread> thread_;  // last: uses all of the above
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_ENGINE_IMPL_H_
