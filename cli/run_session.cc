#include "cli/run_session.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "base/status.h"
#include "base/text.h"
#include "server/model_info.h"

namespace lorikeet {
namespace {

// Offline there is nobody to wait for a cold adapter but us.
constexpr absl::Duration kLoadTimeout = absl::Hours(1);

Json LogprobJson(const TokenLogprobs& l) {
  Json out = Json::Object();
  out.Set("token_id", l.token);
  out.Set("logprob", l.logprob);
  Json top = Json::Array();
  for (const auto& [token, logprob] : l.top) {
    Json entry = Json::Object();
    entry.Set("token_id", token);
    entry.Set("logprob", logprob);
    top.Append(std::move(entry));
  }
  out.Set("top", std::move(top));
  return out;
}

Json LogprobsJson(const std::vector<TokenLogprobs>& list) {
  Json out = Json::Array();
  for (const TokenLogprobs& l : list) out.Append(LogprobJson(l));
  return out;
}

}  // namespace

// Everything known of one request so far.
struct RunSession::Answer {
  struct Candidate {
    std::string text;
    std::vector<Token> tokens;
    std::vector<TokenLogprobs> logprobs;
    FinishedEvent finished;
  };

  int64_t line = 0;
  RunRequest request;
  // Null before Submit. Held until the end: the engine may still hold it too.
  std::shared_ptr<TokenStream> stream;
  std::vector<GenerationAdapter> adapters;  // empty = base model
  bool done = false;
  bool failed = false;
  StartedEvent started;
  std::vector<Candidate> candidates;

  void Take(StreamEvent event) {
    if (auto* s = std::get_if<StartedEvent>(&event)) {
      started = std::move(*s);
    } else if (auto* d = std::get_if<DeltaEvent>(&event)) {
      Candidate& c = At(d->candidate);
      c.text += d->text;
      c.tokens.insert(c.tokens.end(), d->tokens.begin(), d->tokens.end());
      std::move(d->logprobs.begin(), d->logprobs.end(),
                std::back_inserter(c.logprobs));
    } else if (auto* f = std::get_if<FinishedEvent>(&event)) {
      At(f->candidate).finished = std::move(*f);
    }
  }

  Candidate& At(int32_t index) {
    const size_t i = static_cast<size_t>(index);
    if (candidates.size() <= i) candidates.resize(i + 1);
    return candidates[i];
  }

  void AddCandidate(const Candidate& c, Json* out) const {
    out->Set("text", c.text);
    Json ids = Json::Array();
    for (const Token t : c.tokens) ids.Append(t);
    out->Set("token_ids", std::move(ids));
    out->Set("finish_reason", Name(c.finished.reason));
    if (c.finished.matched_stop.has_value()) {
      out->Set("matched_stop", *c.finished.matched_stop);
    }
    if (c.finished.matched_token.has_value()) {
      out->Set("matched_stop", *c.finished.matched_token);
    }
    if (request.input.output.logprobs.has_value()) {
      out->Set("logprobs", LogprobsJson(c.logprobs));
    }
  }

  Json ToJson() const {
    Json out = Json::Object();
    out.Set("id", request.id);
    const Candidate none;
    AddCandidate(candidates.empty() ? none : candidates[0], &out);
    if (request.input.sampling.n.value_or(1) > 1) {
      Json list = Json::Array();
      for (const Candidate& c : candidates) {
        Json entry = Json::Object();
        AddCandidate(c, &entry);
        list.Append(std::move(entry));
      }
      out.Set("candidates", std::move(list));
    }
    if (!request.input.adapters.empty()) {
      out.Set("adapters", AdaptersJson());
    } else if (!adapters.empty()) {
      out.Set("adapter", adapters[0].key.ToString());
    }
    if (request.input.output.return_logits) {
      Json logits = Json::Array();
      for (const float v : started.logits) logits.Append(v);
      out.Set("logits", std::move(logits));
    }
    if (request.input.output.prompt_logprobs.has_value()) {
      out.Set("prompt_logprobs", LogprobsJson(started.prompt_logprobs));
    }
    out.Set("usage", UsageJson());
    return out;
  }

  Json AdaptersJson() const {
    Json list = Json::Array();
    for (const GenerationAdapter& adapter : adapters) {
      Json part = Json::Object();
      part.Set("name", adapter.key.ToString());
      part.Set("scale", adapter.scale);
      list.Append(std::move(part));
    }
    return list;
  }

  Json UsageJson() const {
    int64_t completion = 0;
    for (const Candidate& c : candidates) {
      completion += c.finished.usage.completion_tokens;
    }
    Json usage = Json::Object();
    usage.Set("prompt_tokens", started.prompt_tokens);
    usage.Set("completion_tokens", completion);
    usage.Set("cached_tokens", started.cached_tokens);
    return usage;
  }
};

// Where the engine's thread leaves word that a stream has something to read.
class RunSession::Notifier {
 public:
  void Add(Answer* answer) {
    MutexLock lock(&mu_);
    ready_.push_back(answer);
    changed_.Signal();
  }

  // Waits for the next batch of answers with news.
  std::vector<Answer*> Wait() {
    MutexLock lock(&mu_);
    while (ready_.empty()) changed_.Wait(&mu_);
    std::vector<Answer*> batch;
    batch.swap(ready_);
    // A stream may have called many times since.
    std::sort(batch.begin(), batch.end());
    batch.erase(std::unique(batch.begin(), batch.end()), batch.end());
    return batch;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<Answer*> ready_ ABSL_GUARDED_BY(mu_);
};

RunSession::RunSession(Runtime& runtime, std::optional<uint64_t> admit_seed,
                       std::FILE* out)
    : runtime_(runtime),
      admit_seed_(admit_seed),
      out_(out),
      model_(MakeModelInfo(runtime, "base")),
      notifier_(std::make_unique<Notifier>()) {
  // Offline an absent field means greedy, whatever generation_config.json says.
  model_.sampling = SamplingDefaults{};
  service_ = std::make_unique<GenerateService>(
      model_, runtime.tokenizer.get(), *runtime.adapters, *runtime.engine,
      /*monitor=*/nullptr);
  gate_ = std::make_unique<GoldenGate>(model_, runtime.tokenizer.get(),
                                       *runtime.engine, runtime.clock);
}

RunSession::~RunSession() {
  for (const auto& answer : answers_) {
    if (answer->stream != nullptr) answer->stream->SetCallback(nullptr);
  }
}

absl::Status RunSession::AddAdapter(const std::string& name,
                                    const std::string& path) {
  // With --admit-seed nothing runs before all requests are there.
  GoldenGate* const gate = admit_seed_.has_value() ? nullptr : gate_.get();
  return Annotate(RegisterFromCommandLine(*runtime_.adapters, gate, name, path),
                  absl::StrCat("adapter ", Quote(name), " from ", Quote(path)));
}

absl::Status RunSession::Add(int64_t line_number, RunLine line) {
  if (const auto* op = std::get_if<RunOp>(&line)) {
    SubmitWaiting();
    return Annotate(CarryOut(*op),
                    absl::StrCat("operation in line ", line_number));
  }
  auto answer = std::make_unique<Answer>();
  answer->line = line_number;
  answer->request = std::get<RunRequest>(std::move(line));
  waiting_.push_back(answer.get());
  answers_.push_back(std::move(answer));
  return absl::OkStatus();
}

void RunSession::SubmitWaiting() {
  if (admit_seed_.has_value()) {
    Rng rng(*admit_seed_ + answers_.size());
    for (size_t i = waiting_.size(); i > 1; --i) {
      std::swap(waiting_[i - 1], waiting_[rng.Below(i)]);
    }
  }
  // Held until all are in, so that which requests share a step does not depend
  // on how fast this loop is.
  runtime_.engine->SetHeld(true);
  for (Answer* answer : waiting_) Submit(*answer);
  runtime_.engine->SetHeld(false);
  waiting_.clear();
}

void RunSession::Submit(Answer& answer) {
  GenerateInput& input = answer.request.input;
  if (input.task.empty() && input.adapters.empty()) input.task = model_.id;
  absl::StatusOr<Generation> generation =
      service_->Generate(answer.request.input);
  if (absl::IsResourceExhausted(generation.status())) {
    // The engine's inbox is full: let it work until all of it is answered.
    runtime_.engine->SetHeld(false);
    ReadUntil([this] { return num_active_ == 0; });
    generation = service_->Generate(answer.request.input);
  }
  if (!generation.ok()) return Fail(answer, generation.status());
  answer.stream = generation->stream;
  answer.adapters = generation->adapters;
  ++num_active_;
  answer.stream->SetCallback(
      [notifier = notifier_.get(), &answer] { notifier->Add(&answer); });
}

absl::Status RunSession::CarryOut(const RunOp& op) {
  const std::string tenant(kDefaultTenant);
  switch (op.kind) {
    case RunOp::Kind::kBarrier:
      ReadUntil([this] { return num_active_ == 0; });
      return absl::OkStatus();
    case RunOp::Kind::kUpdate:
      return AddAdapter(op.adapter, op.path);
    case RunOp::Kind::kLoad:
      if (!op.path.empty()) RETURN_IF_ERROR(AddAdapter(op.adapter, op.path));
      return Annotate(
          runtime_.adapters->LoadTo(tenant, op.adapter, Tier::kDevice,
                                    std::nullopt, kLoadTimeout),
          absl::StrCat("adapter ", Quote(op.adapter)));
    case RunOp::Kind::kUnload:
      // What uses it finishes first: unloading never takes weights away.
      ReadUntil([&] { return !HasActive(op.adapter); });
      return Annotate(
          runtime_.adapters->UnloadTo(tenant, op.adapter, Tier::kDisk).status(),
          absl::StrCat("adapter ", Quote(op.adapter)));
  }
  return absl::OkStatus();
}

bool RunSession::HasActive(const std::string& adapter) const {
  return std::any_of(answers_.begin(), answers_.end(), [&](const auto& a) {
    return a->stream != nullptr && !a->done &&
           std::ranges::any_of(a->adapters, [&](const GenerationAdapter& g) {
             return g.key.name == adapter;
           });
  });
}

template <typename Predicate>
void RunSession::ReadUntil(Predicate done) {
  while (!done()) {
    for (Answer* answer : notifier_->Wait()) ReadEvents(*answer);
    PrintReady();
  }
}

void RunSession::ReadEvents(Answer& answer) {
  if (answer.done) return;
  while (std::optional<StreamEvent> event = answer.stream->Next()) {
    answer.Take(*std::move(event));
  }
  if (!answer.stream->done()) return;
  const absl::Status status = answer.stream->status();
  answer.stream->SetCallback(nullptr);
  --num_active_;
  if (!status.ok()) return Fail(answer, status);
  answer.done = true;
}

void RunSession::Fail(Answer& answer, const absl::Status& status) {
  answer.done = true;
  answer.failed = true;
  const std::string id =
      answer.request.id.is_null()
          ? ""
          : absl::StrCat(" (id ", Escape(answer.request.id.Dump(), 80), ")");
  errors_[answer.line] =
      absl::StrCat("request in line ", answer.line, id, ": ", status.message());
}

void RunSession::PrintReady() {
  bool printed = false;
  while (num_printed_ < answers_.size() && answers_[num_printed_]->done) {
    Answer& answer = *answers_[num_printed_];
    if (!answer.failed) {
      std::fprintf(out_, "%s\n", answer.ToJson().Dump().c_str());
      printed = true;
    }
    // Logits are large; nothing of a printed answer is needed again.
    answer.candidates.clear();
    answer.started = StartedEvent();
    ++num_printed_;
  }
  if (printed) std::fflush(out_);
}

void RunSession::Finish() {
  SubmitWaiting();
  ReadUntil([this] { return num_active_ == 0; });
  PrintReady();
}

}  // namespace lorikeet
