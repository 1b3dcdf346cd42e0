#include "server/frontend/golden_gate.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/reason.h"
#include "base/status.h"
#include "server/frontend/generate_request.h"

namespace lorikeet {
namespace {

constexpr size_t kAtOnce = 4;
// Of a whole file. Behind a busy server the lowest priority waits long.
constexpr absl::Duration kTimeout = absl::Minutes(5);

// Reads one stream to its end.
class Reader {
 public:
  explicit Reader(std::shared_ptr<TokenStream> stream)
      : stream_(std::move(stream)) {
    stream_->SetCallback([this] { Read(); });
  }
  ~Reader() {
    stream_->Cancel();
    stream_->SetCallback(nullptr);
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // False if it has not ended within `timeout`.
  bool Wait(absl::Duration timeout) {
    MutexLock lock(&mu_);
    while (!has_ended_) {
      if (timeout <= absl::ZeroDuration() || ended_.WaitFor(&mu_, timeout)) {
        return has_ended_;
      }
    }
    return true;
  }
  // REQUIRES: it has ended.
  absl::Status status() const { return stream_->status(); }
  std::vector<uint32_t> tokens() {
    MutexLock lock(&mu_);
    return tokens_;
  }
  std::vector<float> logits() {
    MutexLock lock(&mu_);
    return logits_;
  }

 private:
  void Read() {
    MutexLock lock(&mu_);
    while (std::optional<StreamEvent> event = stream_->Next()) {
      if (auto* started = std::get_if<StartedEvent>(&*event)) {
        logits_ = std::move(started->logits);
      } else if (auto* delta = std::get_if<DeltaEvent>(&*event)) {
        tokens_.insert(tokens_.end(), delta->tokens.begin(),
                       delta->tokens.end());
      }
    }
    has_ended_ = stream_->done();
    if (has_ended_) ended_.SignalAll();
  }

  const std::shared_ptr<TokenStream> stream_;
  Mutex mu_;
  CondVar ended_;
  bool has_ended_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<uint32_t> tokens_ ABSL_GUARDED_BY(mu_);
  std::vector<float> logits_ ABSL_GUARDED_BY(mu_);
};

absl::Status AtLine(const GoldenCase& golden, const absl::Status& status) {
  return Annotate(status, absl::StrCat("golden.jsonl line ", golden.line));
}

absl::Status Timeout(const GoldenCase& golden) {
  return WithReason(
      absl::DeadlineExceededError(
          absl::StrCat("golden.jsonl line ", golden.line, ": no answer within ",
                       absl::FormatDuration(kTimeout), " of the whole file")),
      "GOLDEN_TIMEOUT");
}

}  // namespace

GoldenGate::GoldenGate(const ModelInfo& model, const Tokenizer* tokenizer,
                       Engine& engine, const Clock& clock)
    : model_(model), tokenizer_(tokenizer), engine_(engine), clock_(clock) {}

absl::Status GoldenGate::Check(const VersionRef& version,
                               absl::string_view golden) {
  ASSIGN_OR_RETURN(const std::vector<GoldenCase> cases,
                   ParseGoldenFile(golden));
  const absl::Duration deadline = clock_.Now() + kTimeout;
  for (size_t i = 0; i < cases.size(); i += kAtOnce) {
    const size_t count = std::min(kAtOnce, cases.size() - i);
    RETURN_IF_ERROR(
        CheckSome(version, std::span(cases).subspan(i, count), deadline));
  }
  return absl::OkStatus();
}

absl::StatusOr<EngineRequest> GoldenGate::MakeRequest(
    const VersionRef& version, const GoldenCase& golden) const {
  EngineRequest request;
  if (golden.prompt.has_value()) {
    if (tokenizer_ == nullptr) {
      return WithReason(
          absl::InvalidArgumentError(
              "has a prompt of text, the model has no tokenizer.json"),
          "GOLDEN_INVALID");
    }
    ASSIGN_OR_RETURN(request.prompt,
                     tokenizer_->Encode(*golden.prompt, EncodeOptions()));
  } else {
    ASSIGN_OR_RETURN(request.prompt,
                     CheckTokens("token_ids", golden.token_ids, model_));
  }
  request.adapters = {{version, 1}};
  request.tenant = version->key.tenant;
  request.stop.max_tokens =
      static_cast<int32_t>(std::max<size_t>(1, golden.tokens.size()));
  request.output.text = false;
  request.output.return_logits = !golden.logits.empty();
  request.priority = std::numeric_limits<int32_t>::max();
  return request;
}

absl::Status GoldenGate::CheckSome(const VersionRef& version,
                                   std::span<const GoldenCase> cases,
                                   absl::Duration deadline) {
  std::vector<std::unique_ptr<Reader>> readers;
  for (const GoldenCase& golden : cases) {
    absl::StatusOr<EngineRequest> request = MakeRequest(version, golden);
    if (!request.ok()) return AtLine(golden, request.status());
    absl::StatusOr<std::shared_ptr<TokenStream>> stream =
        engine_.Submit(*std::move(request));
    if (!stream.ok()) return AtLine(golden, stream.status());
    readers.push_back(std::make_unique<Reader>(*std::move(stream)));
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    const GoldenCase& golden = cases[i];
    if (!readers[i]->Wait(deadline - clock_.Now())) return Timeout(golden);
    if (!readers[i]->status().ok()) {
      return AtLine(golden, readers[i]->status());
    }
    RETURN_IF_ERROR(CompareLogits(golden, readers[i]->logits()));
    RETURN_IF_ERROR(CompareTokens(golden, readers[i]->tokens()));
  }
  return absl::OkStatus();
}

}  // namespace lorikeet
