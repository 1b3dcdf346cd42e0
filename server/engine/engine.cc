// A step: take the mail, plan, lease adapters, compute, commit, publish. The
// plan's spans point into the scheduler, so nothing but Commit changes it
// between Plan and Commit; cancellations wait in the inbox meanwhile.

#include "server/engine/engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/reason.h"
#include "base/status.h"
#include "model/kv_pool.h"
#include "server/engine/engine_impl.h"
#include "server/engine/local_runner.h"

namespace lorikeet {
namespace {

// A request that waits for an adapter is looked at this often even if no load
// tells that it has ended.
constexpr absl::Duration kPollWaiting = absl::Milliseconds(50);
// Merging takes this share of the time of steps, so that what runs is delayed
// by no more; and all of the time while nothing runs, in slices after which
// new requests are seen.
constexpr double kMergeShare = 0.05;
constexpr absl::Duration kIdleSlice = absl::Milliseconds(2);
// Pauses end by clock; its steps are not seen while waiting.
constexpr absl::Duration kPollPaused = absl::Milliseconds(100);

constexpr int64_t kDefaultMaxNumSeqs = 64;
constexpr int64_t kDefaultMaxNumBatchedTokens = 512;
constexpr int64_t kDefaultMaxWaitingRequests = 1024;
constexpr int64_t kDefaultKvCacheBytes = int64_t{1} << 30;

SchedulerOptions MakeSchedulerOptions(const EngineOptions& options,
                                      const EngineImpl::ModelFacts& model) {
  SchedulerOptions o;
  o.num_blocks = model.num_blocks;
  o.block_size = model.block_size;
  o.max_num_seqs = options.max_num_seqs;
  o.max_num_batched_tokens = options.max_num_batched_tokens;
  // The inbox refuses; extra requests wait beside the others.
  o.max_waiting_requests =
      options.max_waiting_requests + options.max_waiting_requests / 2;
  o.prefix_caching = options.prefix_caching;
  return o;
}

absl::Status CheckPositive(absl::string_view name, int64_t value) {
  if (value > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is ", value, ", must be greater than 0"));
}

// Fills in what is 0 and checks the rest.
absl::StatusOr<EngineOptions> Resolve(const ModelConfig& config,
                                      EngineOptions o) {
  if (o.max_num_seqs == 0) o.max_num_seqs = kDefaultMaxNumSeqs;
  if (o.max_num_batched_tokens == 0) {
    o.max_num_batched_tokens =
        std::max(kDefaultMaxNumBatchedTokens, o.max_num_seqs);
  }
  if (o.max_waiting_requests == 0) {
    o.max_waiting_requests = kDefaultMaxWaitingRequests;
  }
  if (o.kv_cache_bytes == 0) o.kv_cache_bytes = kDefaultKvCacheBytes;
  RETURN_IF_ERROR(CheckPositive("max_num_seqs", o.max_num_seqs));
  RETURN_IF_ERROR(
      CheckPositive("max_num_batched_tokens", o.max_num_batched_tokens));
  RETURN_IF_ERROR(
      CheckPositive("max_waiting_requests", o.max_waiting_requests));
  RETURN_IF_ERROR(CheckPositive("kv_cache_bytes", o.kv_cache_bytes));
  RETURN_IF_ERROR(CheckPositive("max_buffered_deltas", o.max_buffered_deltas));
  if (o.max_model_len < 0 || o.max_model_len > config.max_position) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_model_len ", o.max_model_len, " is not in [1, ",
        config.max_position, "], the positions of the base model"));
  }
  const int64_t block_bytes = KvPool::BlockBytes(config, o.kv_dtype);
  const int64_t capacity = o.kv_cache_bytes / block_bytes * kKvBlockSize;
  if (capacity == 0 || o.max_model_len > capacity) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "kv_cache_bytes ", o.kv_cache_bytes, " holds ", capacity,
        " tokens, max_model_len is ", o.max_model_len, "; a block of ",
        kKvBlockSize, " tokens needs ", block_bytes, " bytes"));
  }
  if (o.max_model_len == 0) {
    o.max_model_len = std::min(config.max_position, capacity);
  }
  return o;
}

}  // namespace

const char* Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAbort:
      return "abort";
  }
  return "";
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const Model& model, const Tokenizer* tokenizer, Ops& ops,
    AdapterStore& adapters, const Clock& clock, const EngineOptions& options) {
  ASSIGN_OR_RETURN(const EngineOptions resolved,
                   Resolve(model.config(), options));
  EngineImpl::ModelFacts facts;
  facts.vocab_size = model.config().vocab_size;
  facts.fingerprint = model.fingerprint();
  facts.block_size = kKvBlockSize;
  facts.weights.emplace(model, ops);
  facts.ops = &ops;
  facts.num_blocks = resolved.kv_cache_bytes /
                     KvPool::BlockBytes(model.config(), resolved.kv_dtype);
  ASSIGN_OR_RETURN(KvPool pool,
                   KvPool::Create(model.config(), resolved.kv_dtype,
                                  facts.num_blocks, &ops));
  return std::make_unique<EngineImpl>(
      std::make_unique<LocalRunner>(model, ops, std::move(pool)), facts,
      tokenizer, adapters, clock, resolved);
}

EngineImpl::EngineImpl(std::unique_ptr<ModelRunner> runner,
                       const ModelFacts& model, const Tokenizer* tokenizer,
                       AdapterStore& adapters, const Clock& clock,
                       const EngineOptions& options)
    : options_(options),
      model_(model),
      tokenizer_(tokenizer),
      adapters_(adapters),
      clock_(clock),
      inbox_(std::make_shared<Inbox>(options.max_waiting_requests,
                                     options.start_held)),
      runner_(std::move(runner)),
      scheduler_(Scheduler::Create(MakeSchedulerOptions(options, model))),
      residency_(adapters) {
  load_.scheduler = scheduler_->load();
  uses_auto_ = options_.merge == MergePolicy::kAuto;
  if (options_.max_merged > 0 && model_.weights.has_value()) {
    merged_ = std::make_unique<MergedResidency>(
        adapters_, *model_.weights, *model_.ops, clock_, options_.max_merged);
  }
  adapters_.SetLoadedCallback([inbox = inbox_] { inbox->Wake(); });
  thread_ = std::make_unique<BackgroundThread>("engine", [this] { Loop(); });
}

EngineImpl::~EngineImpl() {
  inbox_->Stop();
  thread_.reset();
  adapters_.SetLoadedCallback(nullptr);
}

void EngineImpl::Loop() {
  while (!measured_ && MeasureCosts(/*is_idle=*/true)) {
  }
  while (DrainInbox()) {
    if (inbox_->is_held()) {
      inbox_->WaitForMail(absl::InfiniteDuration());
    } else {
      Step();
    }
  }
  for (const RequestId id : AllIds()) {
    Fail(id, absl::CancelledError("the engine was stopped"));
  }
  residency_.DropAll();
  if (merged_ != nullptr) merged_->DropAll();
}

void EngineImpl::Step() {
  const absl::Duration start = clock_.Now();
  EndSlowReaders(start);
  AdmitMerged();
  const StepPlan plan = Plan(start);
  if (plan.empty()) {
    scheduler_->Commit({});
    UpdateLoad(clock_.Now());
    if (!WorkBetweenSteps(kIdleSlice, /*is_idle=*/true) && !WorkInGap()) {
      WaitForWork();
    }
    return;
  }
  const StepInput& input =
      builder_.Build(plan, *scheduler_, residency_, requests_);
  const StepTicket ticket = runner_->Submit(input);
  StepResult result = runner_->Wait(ticket);
  const absl::Duration now = clock_.Now();
  if (!result.status.ok()) return FailStep(result.status);
  ObserveRows(plan, now);
  scheduler_->Commit(TakeResult(std::move(result), now));
  UpdateLoad(now);  // Whoever hears of an end finds it counted.
  Publish(now);
  WorkBetweenSteps(kMergeShare * (now - start), /*is_idle=*/false);
  if (gap_work_ != nullptr) gap_work_->AfterStep(now - start);
}

bool EngineImpl::WorkInGap() {
  return gap_work_ != nullptr && gap_work_->WhileIdle();
}

void EngineImpl::SetGapWork(GapWork* work) {
  inbox_->Run([this, work] { gap_work_ = work; });
}

void EngineImpl::FailStep(const absl::Status& status) {
  const std::vector<RequestId> ids = scheduler_->AbortStep();
  UpdateLoad(clock_.Now());
  for (const RequestId id : ids) Fail(id, status);
}

StepPlan EngineImpl::Plan(absl::Duration now) {
  residency_.Begin(scheduler_->AdaptersInUse());
  StepPlan plan = scheduler_->Plan(now, residency_);
  NoteAdapters(now);
  NoteStarts(plan, now);
  for (const auto& [key, error] :
       residency_.Finish(scheduler_->AdaptersInUse(), plan.promote)) {
    FailAdapter(key, error);
  }
  return plan;
}

std::vector<SampledToken> EngineImpl::TakeResult(StepResult result,
                                                 absl::Duration now) {
  size_t next = 0;
  for (const BatchBuilder::PromptRows& rows : builder_.prompt_rows()) {
    for (int32_t i = 0; i < rows.count; ++i) {
      SampledRow& row = result.logprobs[next++];
      rows.request->prompt_logprobs[static_cast<size_t>(rows.position + i)] = {
          row.token, row.logprob, std::move(row.top)};
    }
  }
  const int64_t vocab = model_.vocab_size;
  auto logits = result.copies.begin();
  for (RequestState* request : builder_.copies()) {
    request->logits.assign(logits, logits + vocab);
    logits += vocab;
  }
  std::vector<SampledToken> sampled;
  sampled.reserve(result.sampled.size());
  for (size_t i = 0; i < result.sampled.size(); ++i) {
    const BatchBuilder::Sample& sample = builder_.samples()[i];
    RequestState* request = sample.request;
    if (!request->times.first_token) request->times.first_token = now;
    request->has_forked = true;
    const Token token = result.sampled[i].token;
    const bool finished =
        request->Append(sample.candidate, std::move(result.sampled[i]));
    sampled.push_back({sample.sequence, token, finished});
    if (std::exchange(request->is_touched, true)) continue;
    touched_.push_back(request);
  }
  generated_.Add(now, static_cast<int64_t>(sampled.size()));
  {
    MutexLock lock(&load_mu_);
    ++load_.steps;
    load_.generated_tokens += static_cast<int64_t>(sampled.size());
  }
  return sampled;
}

void EngineImpl::WaitForWork() {
  absl::Duration timeout = absl::InfiniteDuration();
  if (!scheduler_->idle() || !merge_line_.empty()) timeout = kPollWaiting;
  if (!paused_.empty()) timeout = std::min(timeout, kPollPaused);
  inbox_->WaitForMail(timeout);
}

void EngineImpl::UpdateLoad(absl::Duration now) {
  const SchedulerLoad load = scheduler_->load();
  prompt_tokens_.Add(now, load.prompt_tokens - last_load_.prompt_tokens);
  cached_tokens_.Add(now, load.cached_tokens - last_load_.cached_tokens);
  last_load_ = load;
  const int64_t prompt_tokens = prompt_tokens_.Sum(now);
  MutexLock lock(&load_mu_);
  load_.scheduler = load;
  load_.decode_tokens_per_second = generated_.PerSecond(now);
  load_.prefix_cache_hit_rate =
      prompt_tokens == 0 ? 0
                         : static_cast<double>(cached_tokens_.Sum(now)) /
                               static_cast<double>(prompt_tokens);
}

}  // namespace lorikeet
