// The state of the scheduler. What happens to requests and the commit of steps
// are in scheduler.cc, the plan is in scheduler_plan.cc.
//
// Engine thread only.

#ifndef LORIKEET_SERVER_SCHEDULER_SCHEDULER_IMPL_H_
#define LORIKEET_SERVER_SCHEDULER_SCHEDULER_IMPL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/scheduler/kv_blocks.h"
#include "server/scheduler/scheduler.h"
#include "server/scheduler/sequence.h"

namespace lorikeet {

class SchedulerImpl final : public Scheduler {
 public:
  explicit SchedulerImpl(const SchedulerOptions& options);

  bool Add(SchedulerRequest request) override;
  void Cancel(RequestId request) override;
  void FinishCandidate(RequestId request, int32_t candidate) override;
  void SetPaused(RequestId request, bool paused) override;

  StepPlan Plan(absl::Duration now, const ResidencyView& residency) override;
  void Commit(std::span<const SampledToken> sampled) override;
  std::vector<RequestId> AbortStep() override;

  std::vector<SequenceId> SequencesOf(RequestId request) const override;
  int64_t FlushPrefixCache() override { return blocks_.FlushPrefixCache(); }
  SchedulerLoad load() const override;
  bool idle() const override { return requests_.empty(); }
  std::vector<AdapterKey> AdaptersInUse() const override;
  void CheckInvariants() const override;

 private:
  // One sequence's part of the step between Plan and Commit.
  struct StepItem {
    SequenceId sequence;
    int64_t begin = 0;
    int64_t end = 0;
    bool samples = false;
    std::optional<KvBlocks::BlockCopy> copy;
  };
  // What the waiting list may still do in the plan being made.
  struct AdmissionRules {
    bool no_other_adapters = false;  // only adapters that run already
    bool no_adapters = false;        // base requests only
  };
  using SequenceSet = std::set<Sequence*, IsOlder>;

  // ---- scheduler.cc --------------------------------------------------------
  RequestEntry* FindRequest(RequestId id) const;
  Sequence* FindSequence(SequenceId id) const;
  void SetState(Sequence* s, Sequence::State state);
  // Ends a sequence, and its request with the last one (then `s` is gone).
  void End(Sequence* s);
  void EraseRequest(RequestEntry* entry);
  void CommitRows(const StepItem& item);
  void ForkCandidates(RequestEntry* entry);

  // ---- scheduler_plan.cc ---------------------------------------------------
  void PlanRunning(StepPlan* plan);
  void AdmitWaiting(const ResidencyView& residency, StepPlan* plan);
  bool MayAdmit(Sequence* s, const ResidencyView& residency,
                AdmissionRules* rules, StepPlan* plan);
  bool Admit(Sequence* s, StepPlan* plan);
  void PlanRows(Sequence* s, StepPlan* plan);
  void ListPromotions(const ResidencyView& residency, StepPlan* plan);
  void FillPlan(StepPlan* plan) const;

  bool IsResident(AdapterUse* use, const ResidencyView& residency);
  bool AreResident(const std::vector<AdapterUse*>& uses,
                   const ResidencyView& residency);
  int64_t PlacesTaken() const;
  int64_t BlocksPromised() const;
  // Preempts somebody for `s`; false if there is nobody it may preempt.
  bool MakeRoom(const Sequence& s, StepPlan* plan);
  bool PreemptPaused(bool with_adapter_only, StepPlan* plan);
  void Preempt(Sequence* s, StepPlan* plan);

  const SchedulerOptions options_;
  KvBlocks blocks_;
  absl::flat_hash_map<RequestId, std::unique_ptr<RequestEntry>> requests_;
  absl::flat_hash_map<SequenceId, Sequence*> sequences_;
  std::map<AdapterKey, AdapterUse> adapters_;
  SequenceSet waiting_;  // oldest first
  SequenceSet running_;

  int64_t next_sequence_ = 1;
  int64_t num_new_ = 0;  // requests that were never admitted
  int64_t preemptions_ = 0;
  int64_t prompt_tokens_ = 0;
  int64_t cached_tokens_ = 0;

  // Between Plan and Commit.
  bool is_step_open_ = false;
  int64_t plan_number_ = 0;
  int64_t budget_ = 0;
  std::vector<StepItem> step_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_SCHEDULER_SCHEDULER_IMPL_H_
