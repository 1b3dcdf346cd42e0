// What happens to requests between Submit and their last event.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/reason.h"
#include "base/status.h"
#include "server/engine/engine_impl.h"
#include "server/engine/kv_domain.h"

namespace lorikeet {

// ---- any thread ------------------------------------------------------------

absl::Status EngineImpl::CheckRequest(const EngineRequest& request) const {
  const int64_t prompt_tokens = static_cast<int64_t>(request.prompt.size());
  const int64_t max_tokens = request.stop.max_tokens;
  if (prompt_tokens == 0) {
    return absl::InvalidArgumentError("the prompt has no tokens");
  }
  for (const Token token : request.prompt) {
    if (token >= 0 && token < model_.vocab_size) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("prompt token ", token, " is not in [0, ",
                     model_.vocab_size, "), the vocabulary"));
  }
  if (max_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens ", max_tokens, " is less than 1"));
  }
  const int64_t n = request.sampling.n;
  if (n < 1 || n > options_.max_num_seqs) {
    return absl::InvalidArgumentError(absl::StrCat("n ", n, " is not in [1, ",
                                                   options_.max_num_seqs,
                                                   "], limit max_num_seqs"));
  }
  RETURN_IF_ERROR(CheckVariant(request));
  if (tokenizer_ == nullptr && !request.stop.stop.empty()) {
    return absl::InvalidArgumentError(
        "stop strings need a tokenizer, the base model has none");
  }
  const int64_t kv_capacity = model_.num_blocks * model_.block_size;
  const int64_t limit = std::min(options_.max_model_len, kv_capacity);
  if (prompt_tokens + max_tokens > limit) {
    return WithReason(absl::InvalidArgumentError(absl::StrCat(
                          "prompt of ", prompt_tokens,
                          " tokens and max_tokens ", max_tokens, " exceed ",
                          limit == options_.max_model_len ? "max_model_len "
                                                          : "the KV cache, ",
                          limit)),
                      "CONTEXT_LENGTH_EXCEEDED");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<TokenStream>> EngineImpl::Submit(
    EngineRequest request) {
  RETURN_IF_ERROR(CheckRequest(request));
  const RequestId id(next_id_.fetch_add(1));
  auto stream =
      std::make_shared<StreamBuffer>(id, options_.max_buffered_deltas, inbox_);
  auto state = std::make_unique<RequestState>(
      id, std::move(request), tokenizer_, options_.max_model_len, stream);
  state->times.submitted = clock_.Now();
  RETURN_IF_ERROR(inbox_->Submit(std::move(state)));
  return std::static_pointer_cast<TokenStream>(stream);
}

int64_t EngineImpl::Drain(absl::Duration timeout) {
  inbox_->StartDraining();
  return inbox_->WaitUntilEmpty(timeout);
}

void EngineImpl::WaitUntilIdle() {
  inbox_->WaitUntilEmpty(absl::InfiniteDuration());
}

void EngineImpl::AbortAdapter(const std::string& tenant,
                              const std::string& name) {
  inbox_->Run([&] {
    for (const RequestId id : AllIds()) {
      if (requests_.at(id)->NamesAdapter(tenant, name)) Abort(id);
    }
  });
}

void EngineImpl::AbortAll() {
  inbox_->Run([&] {
    for (const RequestId id : AllIds()) Abort(id);
  });
}

int64_t EngineImpl::FlushPrefixCache() {
  int64_t blocks = 0;
  inbox_->Run([&] {
    blocks = scheduler_->FlushPrefixCache();
    UpdateLoad(clock_.Now());
  });
  return blocks;
}

EngineLoad EngineImpl::load() const {
  const int64_t num_waiting = inbox_->num_waiting();
  MutexLock lock(&load_mu_);
  EngineLoad load = load_;
  // The scheduler's count is of the last step; it has the preempted too.
  load.scheduler.waiting = std::max(load.scheduler.waiting, num_waiting);
  return load;
}

// ---- engine thread ---------------------------------------------------------

bool EngineImpl::DrainInbox() {
  const bool goes_on = inbox_->Take(&mail_);
  for (auto& request : mail_.submitted) Add(std::move(request));
  for (const RequestId id : mail_.cancelled) {
    Fail(id, absl::CancelledError("the request was cancelled"));
  }
  for (const RequestId id : mail_.drained) {
    const auto it = requests_.find(id);
    if (it != requests_.end()) UpdatePause(it->second.get(), clock_.Now());
  }
  for (const auto& command : mail_.commands) command();
  return goes_on;
}

void EngineImpl::Add(std::unique_ptr<RequestState> owned) {
  RequestState* const request = owned.get();
  requests_.emplace(request->id, std::move(owned));
  request->variant = ChooseVariant(*request);
  if (request->variant == Variant::kUnmerged) return Admit(request);
  merge_line_.push_back(request);
  merge_line_changed_ = true;
}

void EngineImpl::Admit(RequestState* request) {
  const EngineRequest& r = request->request;
  SchedulerRequest s;
  s.id = request->id;
  s.arrival = request->times.submitted;
  s.prompt = r.prompt;
  s.num_candidates = r.sampling.n;
  s.max_tokens = r.stop.max_tokens;
  s.domains = DomainsOf(*request);
  s.adapters = request->needed;
  s.priority = r.priority;
  s.all_prompt_logits = request->wants_prompt_logprobs();
  bool is_ready = true;
  for (const AdapterKey& key : s.adapters) {
    is_ready = residency_.IsResident(key) && is_ready;
  }
  if (!is_ready) {
    cold_.push_back(request);
  } else {
    request->times.adapter_ready =
        request->merged != nullptr ? clock_.Now() : request->times.submitted;
  }
  CHECK(scheduler_->Add(std::move(s)));  // The inbox counts as it does.
}

std::vector<KvDomainStart> EngineImpl::DomainsOf(
    const RequestState& request) const {
  const EngineRequest& r = request.request;
  const auto domain = [&](std::span<const KvAdapter> adapters, int32_t from) {
    return MakeKvDomain(r.tenant, model_.fingerprint, adapters, from,
                        request.variant, options_.kv_dtype);
  };
  std::vector<KvDomainStart> domains;
  if (request.adapters_from > 0) domains.push_back({0, domain({}, 0)});
  if (request.adapters_from == RequestState::kNever) return domains;
  std::vector<KvAdapter> adapters;
  for (const RequestAdapter& adapter : r.adapters) {
    adapters.push_back({adapter.version->key.digest, adapter.scale});
  }
  domains.push_back(
      {request.adapters_from, domain(adapters, request.adapters_from)});
  return domains;
}

void EngineImpl::NoteAdapters(absl::Duration now) {
  std::erase_if(cold_, [&](RequestState* request) {
    if (!std::ranges::all_of(request->needed, [&](const AdapterKey& key) {
          return residency_.IsLeased(key);
        })) {
      return false;
    }
    request->times.adapter_ready = now;
    return true;
  });
}

void EngineImpl::NoteStarts(const StepPlan& plan, absl::Duration now) {
  for (const PlannedSequence& planned : plan.sequences) {
    if (!planned.first_step) continue;
    RequestState* request = requests_.at(planned.request).get();
    if (request->times.scheduled.has_value()) continue;  // It was preempted.
    request->times.scheduled = now;
    request->cached_tokens = planned.cached_tokens;
    inbox_->CountStarted(request->request.is_extra);
    if (request->wants_prompt_logprobs() ||
        request->request.output.return_logits) {
      continue;  // Told with the first token, when they are known.
    }
    request->stream->Push(MakeStarted(request));
    request->stream->Notify();
  }
}

StartedEvent EngineImpl::MakeStarted(RequestState* request) {
  request->has_started = true;
  StartedEvent event;
  event.prompt_tokens = static_cast<int64_t>(request->request.prompt.size());
  event.cached_tokens = request->cached_tokens;
  if (!request->request.adapters.empty()) event.variant = request->variant;
  event.prompt_logprobs = std::move(request->prompt_logprobs);
  event.logits = std::move(request->logits);
  return event;
}

void EngineImpl::Publish(absl::Duration now) {
  for (RequestState* request : touched_) {
    request->is_touched = false;
    PublishRequest(request, now);
  }
  touched_.clear();
}

void EngineImpl::PublishRequest(RequestState* request, absl::Duration now) {
  std::vector<StreamEvent> events;
  if (!request->has_started) events.push_back(MakeStarted(request));
  for (size_t i = 0; i < request->candidates.size(); ++i) {
    Candidate& c = request->candidates[i];
    const int32_t index = static_cast<int32_t>(i);
    if (c.output.has_delta()) {
      DeltaEvent delta = c.output.TakeDelta();
      delta.candidate = index;
      events.push_back(std::move(delta));
    }
    if (c.output.has_ended() && !std::exchange(c.was_reported, true)) {
      events.push_back(request->MakeFinishedEvent(index, now));
    }
  }
  if (request->has_ended()) {
    Forget(request, std::move(events), absl::OkStatus());
    return;
  }
  for (StreamEvent& event : events) request->stream->Push(std::move(event));
  request->stream->Notify();
  UpdatePause(request, now);
}

void EngineImpl::UpdatePause(RequestState* request, absl::Duration now) {
  const bool is_full = request->stream->is_full();
  if (is_full == request->paused_since.has_value()) return;
  scheduler_->SetPaused(request->id, is_full);
  if (is_full) {
    request->paused_since = now;
    paused_.push_back(request->id);
  } else {
    request->paused_since.reset();
    std::erase(paused_, request->id);
  }
}

void EngineImpl::EndSlowReaders(absl::Duration now) {
  const std::vector<RequestId> paused = paused_;
  for (const RequestId id : paused) {
    const RequestState& request = *requests_.at(id);
    if (now - *request.paused_since < options_.slow_reader_timeout) continue;
    Fail(id, WithReason(absl::ResourceExhaustedError(absl::StrCat(
                            "nothing was read for ",
                            absl::FormatDuration(options_.slow_reader_timeout),
                            " while ", options_.max_buffered_deltas,
                            " deltas were waiting")),
                        "SLOW_READER"));
  }
}

void EngineImpl::Fail(RequestId id, const absl::Status& status) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  Forget(it->second.get(), {}, status);
}

void EngineImpl::FailAdapter(const AdapterKey& key,
                             const absl::Status& status) {
  for (const RequestId id : AllIds()) {
    const std::vector<AdapterKey>& needed = requests_.at(id)->needed;
    if (std::ranges::find(needed, key) != needed.end()) Fail(id, status);
  }
}

void EngineImpl::Abort(RequestId id) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  for (Candidate& c : it->second->candidates) c.output.Abort();
  PublishRequest(it->second.get(), clock_.Now());
}

void EngineImpl::Forget(RequestState* request,
                        std::vector<StreamEvent> last_events,
                        const absl::Status& status) {
  const std::shared_ptr<StreamBuffer> stream = request->stream;
  const std::vector<AdapterKey> adapters = request->needed;
  const bool is_extra = request->request.is_extra;
  const bool was_scheduled = request->times.scheduled.has_value();
  scheduler_->Cancel(request->id);
  std::erase(cold_, request);
  std::erase(paused_, request->id);
  LeaveMergeLine(request);
  requests_.erase(request->id);
  for (const AdapterKey& key : adapters) {
    residency_.DropUnused(key, scheduler_->AdaptersInUse());
  }
  if (!was_scheduled) inbox_->CountStarted(is_extra);
  // Who hears of the end finds adapter and place free; who waits for the
  // engine to be empty finds all streams ended.
  for (StreamEvent& event : last_events) stream->Push(std::move(event));
  stream->End(status);
  inbox_->CountEnded();
  stream->Notify();
}

std::vector<RequestId> EngineImpl::AllIds() const {
  std::vector<RequestId> ids;
  ids.reserve(requests_.size());
  for (const auto& [id, request] : requests_) ids.push_back(id);
  std::ranges::sort(ids);
  return ids;
}

}  // namespace lorikeet
