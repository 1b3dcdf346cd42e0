// A sequence is in exactly one place: in waiting_ without blocks, or in
// running_ with the blocks of what it has computed, or (a candidate before the
// fork) nowhere. Blocks change hands in Plan and Commit only, so what a step
// reads stays until the step is committed, even if its request is cancelled
// meanwhile.

#include "server/scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "server/scheduler/scheduler_impl.h"

namespace lorikeet {

const KvDomain& SchedulerRequest::DomainAt(int64_t position) const {
  size_t i = domains.size() - 1;
  while (domains[i].from_position > position) --i;
  return domains[i].domain;
}

std::unique_ptr<Scheduler> Scheduler::Create(const SchedulerOptions& options) {
  return std::make_unique<SchedulerImpl>(options);
}

SchedulerImpl::SchedulerImpl(const SchedulerOptions& options)
    : options_(options), blocks_(options) {
  CHECK_GT(options.max_num_seqs, 0);
  CHECK_GT(options.max_num_batched_tokens, 0);
  CHECK_GT(options.max_waiting_requests, 0);
  CHECK_GT(options.max_all_logits_rows, 0);
}

bool SchedulerImpl::Add(SchedulerRequest request) {
  CHECK(!request.prompt.empty() && request.max_tokens >= 1);
  CHECK(!request.domains.empty() && request.domains[0].from_position == 0);
  CHECK(request.num_candidates >= 1 &&
        request.num_candidates <= options_.max_num_seqs);
  CHECK_LE(blocks_.BlocksFor(static_cast<int64_t>(request.prompt.size()) +
                             request.max_tokens),
           options_.num_blocks);
  if (num_new_ >= options_.max_waiting_requests) return false;

  auto entry = std::make_unique<RequestEntry>();
  entry->request = std::move(request);
  entry->alive = entry->request.num_candidates;
  for (const AdapterKey& key : entry->request.adapters) {
    AdapterUse* use = &adapters_[key];
    CHECK(std::ranges::find(entry->adapters, use) == entry->adapters.end());
    use->key = key;
    ++use->requests;
    entry->adapters.push_back(use);
  }
  for (int32_t c = 0; c < entry->request.num_candidates; ++c) {
    auto s = std::make_unique<Sequence>();
    s->id = SequenceId(next_sequence_++);
    s->entry = entry.get();
    s->candidate = c;
    sequences_[s->id] = s.get();
    entry->sequences.push_back(std::move(s));
  }
  Sequence* leader = entry->sequences.front().get();
  leader->tokens = entry->request.prompt;
  ++num_new_;
  const RequestId id = entry->request.id;
  CHECK(requests_.emplace(id, std::move(entry)).second);
  SetState(leader, Sequence::State::kWaiting);
  return true;
}

void SchedulerImpl::Cancel(RequestId request) {
  if (RequestEntry* entry = FindRequest(request)) EraseRequest(entry);
}

void SchedulerImpl::FinishCandidate(RequestId request, int32_t candidate) {
  RequestEntry* entry = FindRequest(request);
  if (entry == nullptr || candidate < 0 ||
      candidate >= entry->request.num_candidates) {
    return;
  }
  Sequence* leader = entry->sequences.front().get();
  Sequence* s = entry->sequences[static_cast<size_t>(candidate)].get();
  if (s->state == Sequence::State::kEnded) return;
  if (s == leader && s->is_leader() && entry->alive > 1) {
    s->ends_at_fork = true;  // The others still need the prompt computed.
    return;
  }
  if (entry->alive == 2 && leader->ends_at_fork) {
    EraseRequest(entry);
  } else {
    End(s);
  }
}

void SchedulerImpl::SetPaused(RequestId request, bool paused) {
  if (RequestEntry* entry = FindRequest(request)) entry->is_paused = paused;
}

void SchedulerImpl::Commit(std::span<const SampledToken> sampled) {
  CHECK(is_step_open_);
  for (const StepItem& item : step_) CommitRows(item);
  for (const SampledToken& token : sampled) {
    Sequence* s = FindSequence(token.sequence);
    if (s == nullptr || s->state != Sequence::State::kRunning) continue;
    CHECK(s->entry->has_forked && s->num_remaining() == 0);
    s->tokens.push_back(token.token);
    if (token.finished) End(s);
  }
  for (const StepItem& item : step_) {
    if (!item.samples) continue;
    Sequence* s = FindSequence(item.sequence);
    if (s == nullptr || s->state != Sequence::State::kRunning) continue;
    if (s->ends_at_fork) {
      End(s);
    } else {
      CHECK_EQ(s->num_remaining(), 1);  // It got its token.
    }
  }
  blocks_.EndStep();
  step_.clear();
  is_step_open_ = false;
}

std::vector<RequestId> SchedulerImpl::AbortStep() {
  CHECK(is_step_open_);
  std::vector<RequestId> requests;
  for (const StepItem& item : step_) {
    const Sequence* s = FindSequence(item.sequence);
    if (s == nullptr) continue;
    requests.push_back(s->entry->request.id);
    EraseRequest(s->entry);
  }
  blocks_.EndStep();
  step_.clear();
  is_step_open_ = false;
  return requests;
}

std::vector<SequenceId> SchedulerImpl::SequencesOf(RequestId request) const {
  std::vector<SequenceId> ids;
  if (const RequestEntry* entry = FindRequest(request)) {
    for (const auto& s : entry->sequences) ids.push_back(s->id);
  }
  return ids;
}

SchedulerLoad SchedulerImpl::load() const {
  const BlockAllocator& allocator = blocks_.allocator();
  SchedulerLoad load;
  load.running = static_cast<int64_t>(running_.size());
  const RequestEntry* previous = nullptr;  // Candidates stand side by side.
  for (const Sequence* s : waiting_) {
    load.waiting += s->entry != previous ? 1 : 0;
    previous = s->entry;
  }
  load.blocks_total = allocator.num_blocks();
  load.blocks_used = allocator.num_used();
  load.blocks_cached = allocator.num_cached();
  load.preemptions = preemptions_;
  load.prompt_tokens = prompt_tokens_;
  load.cached_tokens = cached_tokens_;
  return load;
}

std::vector<AdapterKey> SchedulerImpl::AdaptersInUse() const {
  std::vector<AdapterKey> keys;
  for (const auto& [key, use] : adapters_) {
    if (use.running > 0) keys.push_back(key);
  }
  return keys;
}

RequestEntry* SchedulerImpl::FindRequest(RequestId id) const {
  const auto it = requests_.find(id);
  return it == requests_.end() ? nullptr : it->second.get();
}

Sequence* SchedulerImpl::FindSequence(SequenceId id) const {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second;
}

void SchedulerImpl::SetState(Sequence* s, Sequence::State state) {
  if (s->state == Sequence::State::kWaiting) waiting_.erase(s);
  if (s->state == Sequence::State::kRunning) {
    running_.erase(s);
    for (AdapterUse* use : s->entry->adapters) --use->running;
  }
  s->state = state;
  if (state == Sequence::State::kWaiting) waiting_.insert(s);
  if (state == Sequence::State::kRunning) {
    running_.insert(s);
    for (AdapterUse* use : s->entry->adapters) ++use->running;
  }
}

void SchedulerImpl::End(Sequence* s) {
  if (s->state == Sequence::State::kEnded) return;
  RequestEntry* entry = s->entry;
  blocks_.Release(s);
  SetState(s, Sequence::State::kEnded);
  if (--entry->alive == 0) EraseRequest(entry);
}

void SchedulerImpl::EraseRequest(RequestEntry* entry) {
  for (const auto& s : entry->sequences) {
    if (s->state != Sequence::State::kEnded) {
      blocks_.Release(s.get());
      SetState(s.get(), Sequence::State::kEnded);
    }
    sequences_.erase(s->id);
  }
  if (!entry->was_admitted) --num_new_;
  for (AdapterUse* use : entry->adapters) {
    if (--use->requests > 0) continue;
    const AdapterKey key = use->key;  // erase takes no part of the element
    adapters_.erase(key);
  }
  requests_.erase(entry->request.id);
}

void SchedulerImpl::CommitRows(const StepItem& item) {
  Sequence* s = FindSequence(item.sequence);
  if (s == nullptr || s->state != Sequence::State::kRunning) return;
  s->num_computed = item.end;
  s->starts = false;
  blocks_.Register(s);
  if (item.samples && s->is_leader()) ForkCandidates(s->entry);
}

void SchedulerImpl::ForkCandidates(RequestEntry* entry) {
  entry->has_forked = true;
  const Sequence& leader = *entry->sequences.front();
  for (const auto& s : entry->sequences) {
    if (s->state != Sequence::State::kUnborn) continue;
    s->tokens = leader.tokens;
    blocks_.Fork(leader, s.get());
    SetState(s.get(), Sequence::State::kRunning);
  }
}

void SchedulerImpl::CheckInvariants() const {
  std::vector<const Sequence*> all;
  int64_t num_new = 0;
  size_t num_waiting = 0, num_running = 0;
  std::map<AdapterKey, std::pair<int64_t, int64_t>> uses;
  for (const auto& [id, entry] : requests_) {
    num_new += entry->was_admitted ? 0 : 1;
    int64_t alive = 0;
    for (const AdapterUse* use : entry->adapters) ++uses[use->key].first;
    for (const auto& s : entry->sequences) {
      all.push_back(s.get());
      CHECK(FindSequence(s->id) == s.get());
      const bool waits = s->state == Sequence::State::kWaiting;
      const bool runs = s->state == Sequence::State::kRunning;
      CHECK_EQ(waits, waiting_.contains(s.get()));
      CHECK_EQ(runs, running_.contains(s.get()));
      CHECK(runs || s->blocks.empty());
      if (waits || runs) CHECK_GE(s->num_remaining(), 1);
      if (s->state == Sequence::State::kUnborn) CHECK(!entry->has_forked);
      num_waiting += waits ? 1 : 0;
      num_running += runs ? 1 : 0;
      alive += s->state != Sequence::State::kEnded ? 1 : 0;
      if (!runs) continue;
      for (const AdapterUse* use : entry->adapters) ++uses[use->key].second;
    }
    CHECK_EQ(alive, entry->alive);
    CHECK_GT(alive, 0);
  }
  CHECK_EQ(all.size(), sequences_.size());
  CHECK_EQ(num_waiting, waiting_.size());
  CHECK_EQ(num_running, running_.size());
  CHECK_EQ(num_new, num_new_);
  CHECK_EQ(uses.size(), adapters_.size());
  for (const auto& [key, use] : adapters_) {
    CHECK(uses.at(key) == std::make_pair(use.requests, use.running));
  }
  CHECK_LE(PlacesTaken(), options_.max_num_seqs);
  blocks_.CheckInvariants(all);
}

}  // namespace lorikeet
