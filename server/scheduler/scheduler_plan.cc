// How a step is planned.
//
//   running   decodes, then prefills in progress, each oldest first. Who lacks
//             blocks takes them from the youngest; who is the youngest itself
//             skips the step and keeps what it has.
//   waiting   oldest first. The first one that lacks places or blocks ends the
//             admission, so nobody overtakes it; one that lacks its adapter
//             only may be passed.
//
// A request that was passed max_passes times gets the next slot: until it is
// in, no younger request may bring another adapter into use, and if all slots
// are in use, none may prolong the use of one either. Base requests need no
// slot and are never held up by this.

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "server/scheduler/scheduler_impl.h"

namespace lorikeet {
namespace {

// HasRoomFor may be an estimate (adapters differ in size). Passed this many
// times max_passes, a request gets its slot emptied anyway.
constexpr int64_t kPatience = 8;

// One block in reserve for so many running sequences: they will need blocks
// soon, and a newcomer would be the first to lose its own again.
constexpr size_t kSequencesPerSpareBlock = 4;

}  // namespace

StepPlan SchedulerImpl::Plan(absl::Duration /*now*/,
                             const ResidencyView& residency) {
  CHECK(!is_step_open_);
  is_step_open_ = true;
  ++plan_number_;
  budget_ = options_.max_num_batched_tokens;
  StepPlan plan;
  PlanRunning(&plan);
  // What was just taken from somebody must not be given to others.
  if (plan.preempted.empty()) AdmitWaiting(residency, &plan);
  ListPromotions(residency, &plan);
  FillPlan(&plan);
  return plan;
}

void SchedulerImpl::PlanRunning(StepPlan* plan) {
  const std::vector<Sequence*> running(running_.begin(), running_.end());
  for (const bool decodes : {true, false}) {
    for (Sequence* s : running) {
      if (budget_ == 0) return;
      if (s->state != Sequence::State::kRunning || s->entry->is_paused ||
          (s->num_remaining() == 1) != decodes) {
        continue;
      }
      PlanRows(s, plan);
    }
  }
}

void SchedulerImpl::AdmitWaiting(const ResidencyView& residency,
                                 StepPlan* plan) {
  AdmissionRules rules;
  std::vector<Sequence*> passed;
  for (auto it = waiting_.begin(); it != waiting_.end() && budget_ > 0;) {
    Sequence* s = *it++;  // Admission takes it out of the set.
    if (s->entry->is_paused) continue;
    if (!MayAdmit(s, residency, &rules, plan)) {
      passed.push_back(s);
      continue;
    }
    if (!Admit(s, plan)) return;
    for (Sequence* older : passed) ++older->passes;
  }
}

bool SchedulerImpl::MayAdmit(Sequence* s, const ResidencyView& residency,
                             AdmissionRules* rules, StepPlan* plan) {
  const std::vector<AdapterUse*>& uses = s->entry->adapters;
  if (uses.empty()) return true;
  if (rules->no_adapters) return false;
  const bool brings_another = std::ranges::any_of(
      uses, [](const AdapterUse* use) { return use->running == 0; });
  if (rules->no_other_adapters && brings_another) return false;
  if (AreResident(uses, residency)) return true;
  if (s->passes >= options_.max_passes) {
    rules->no_other_adapters = true;
    const bool has_room = residency.HasRoomFor(s->entry->request.adapters);
    if (!has_room || s->passes >= kPatience * options_.max_passes) {
      rules->no_adapters = true;
    }
    // A slow reader must not keep the slot.
    if (!has_room) PreemptPaused(/*with_adapter_only=*/true, plan);
  }
  return false;
}

bool SchedulerImpl::Admit(Sequence* s, StepPlan* plan) {
  while (PlacesTaken() + s->num_places() > options_.max_num_seqs) {
    if (!PreemptPaused(/*with_adapter_only=*/false, plan)) return false;
  }
  const std::vector<PrefixCache::Hit> hits = blocks_.FindPrefix(*s);
  const int64_t needed =
      blocks_.BlocksFor(s->num_tokens()) - static_cast<int64_t>(hits.size());
  const auto has_blocks = [&] {
    const int64_t spare =
        static_cast<int64_t>((running_.size() + kSequencesPerSpareBlock - 1) /
                             kSequencesPerSpareBlock);
    return blocks_.allocator().num_available() - blocks_.CountUnused(hits) >=
           needed + BlocksPromised() + spare;
  };
  while (!has_blocks()) {
    if (!PreemptPaused(/*with_adapter_only=*/false, plan)) {
      CHECK(!running_.empty());  // Add checked that it fits alone.
      return false;
    }
  }
  blocks_.AdoptPrefix(hits, s);
  s->starts = true;
  s->passes = 0;
  s->cached_tokens = static_cast<int32_t>(std::min(
      s->num_computed, static_cast<int64_t>(s->entry->request.prompt.size())));
  if (!s->entry->was_admitted) {
    s->entry->was_admitted = true;
    --num_new_;
    prompt_tokens_ += static_cast<int64_t>(s->entry->request.prompt.size());
    cached_tokens_ += s->cached_tokens;
  }
  SetState(s, Sequence::State::kRunning);
  PlanRows(s, plan);
  return true;
}

void SchedulerImpl::PlanRows(Sequence* s, StepPlan* plan) {
  int64_t rows = std::min(s->num_remaining(), budget_);
  if (s->entry->request.all_prompt_logits && !s->has_sampled()) {
    rows = std::min(rows, options_.max_all_logits_rows);
  }
  StepItem item;
  item.sequence = s->id;
  item.begin = s->num_computed;
  item.end = item.begin + rows;
  item.samples = item.end == s->num_tokens();
  while (!blocks_.Reserve(item.end, s, &item.copy)) {
    if (!MakeRoom(*s, plan)) {
      CHECK(!item.copy.has_value());  // Shared blocks are never the only ones.
      return;
    }
  }
  budget_ -= rows;
  step_.push_back(std::move(item));
}

void SchedulerImpl::ListPromotions(const ResidencyView& residency,
                                   StepPlan* plan) {
  for (const Sequence* s : waiting_) {
    if (s->entry->is_paused) continue;
    for (AdapterUse* use : s->entry->adapters) {
      if (plan->promote.size() == StepPlan::kMaxPromote) return;
      IsResident(use, residency);  // Resets is_listed in the first look.
      if (use->running > 0 || use->is_listed) continue;
      use->is_listed = true;
      plan->promote.push_back(use->key);
    }
  }
}

void SchedulerImpl::FillPlan(StepPlan* plan) const {
  for (const StepItem& item : step_) {
    const Sequence* s = FindSequence(item.sequence);
    const SchedulerRequest& request = s->entry->request;
    PlannedSequence planned;
    planned.sequence = s->id;
    planned.request = request.id;
    planned.candidate = s->candidate;
    planned.begin = static_cast<int32_t>(item.begin);
    planned.end = static_cast<int32_t>(item.end);
    planned.tokens = std::span<const Token>(s->tokens).subspan(
        static_cast<size_t>(item.begin),
        static_cast<size_t>(item.end - item.begin));
    planned.block_table = s->blocks;
    planned.samples = item.samples;
    planned.all_logits = request.all_prompt_logits && !s->has_sampled();
    planned.first_step = s->starts;
    planned.cached_tokens = s->cached_tokens;
    plan->sequences.push_back(planned);
    plan->num_rows += item.end - item.begin;
    if (item.copy.has_value()) plan->block_copies.push_back(*item.copy);
  }
}

bool SchedulerImpl::IsResident(AdapterUse* use,
                               const ResidencyView& residency) {
  if (use->plan_number != plan_number_) {
    use->plan_number = plan_number_;
    use->is_listed = false;
    use->is_resident = residency.IsResident(use->key);
  }
  return use->is_resident;
}

bool SchedulerImpl::AreResident(const std::vector<AdapterUse*>& uses,
                                const ResidencyView& residency) {
  bool all = true;
  // Each is looked at: to look keeps it there until the plan is made.
  for (AdapterUse* use : uses) all = IsResident(use, residency) && all;
  return all;
}

int64_t SchedulerImpl::PlacesTaken() const {
  int64_t places = 0;
  for (const Sequence* s : running_) places += s->num_places();
  return places;
}

int64_t SchedulerImpl::BlocksPromised() const {
  int64_t blocks = 0;
  for (const Sequence* s : running_) {
    blocks += std::max<int64_t>(0, blocks_.BlocksFor(s->num_tokens()) -
                                       static_cast<int64_t>(s->blocks.size()));
  }
  return blocks;
}

bool SchedulerImpl::MakeRoom(const Sequence& s, StepPlan* plan) {
  if (PreemptPaused(/*with_adapter_only=*/false, plan)) return true;
  Sequence* youngest = *running_.rbegin();
  if (!IsOlder()(&s, youngest)) return false;
  Preempt(youngest, plan);
  return true;
}

bool SchedulerImpl::PreemptPaused(bool with_adapter_only, StepPlan* plan) {
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    const RequestEntry& entry = *(*it)->entry;
    if (!entry.is_paused) continue;
    if (with_adapter_only && entry.adapters.empty()) continue;
    Preempt(*it, plan);
    return true;
  }
  return false;
}

void SchedulerImpl::Preempt(Sequence* s, StepPlan* plan) {
  const auto planned = std::ranges::find(step_, s->id, &StepItem::sequence);
  if (planned != step_.end()) {
    budget_ += planned->end - planned->begin;
    step_.erase(planned);
  }
  blocks_.Release(s);
  SetState(s, Sequence::State::kWaiting);
  plan->preempted.push_back(s->id);
  ++preemptions_;
}

}  // namespace lorikeet
