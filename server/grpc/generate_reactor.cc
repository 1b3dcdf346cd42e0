// Locks: mu_ of a call, then the stream's, then a queue's. The stream's
// callback takes the queue's only.
//
// A call keeps itself alive by self_ until OnDone; closures on queues hold a
// reference too, and the stream's callback a weak one.

#include "server/grpc/generate_reactor.h"

#include <atomic>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "lorikeet/v1/inference.pb.h"
#include "server/frontend/error.h"
#include "server/grpc/call.h"
#include "server/grpc/convert.h"

namespace lorikeet {
namespace {

// A longer prompt is tokenized on a queue, not on gRPC's thread: this much
// takes well below a millisecond.
constexpr size_t kLongPromptBytes = 16 << 10;

// What both calls have in common: admission, waking up, ending.
class GenerateCall : public std::enable_shared_from_this<GenerateCall> {
 public:
  GenerateCall(grpc::CallbackServerContext& context, GenerateService& service,
               const GenerateQueues& queues)
      : context_(context), service_(service), queues_(queues) {}
  virtual ~GenerateCall() = default;

  // Admits the request, now or soon. Called once, before the reactor is given
  // to gRPC.
  void Start(const absl::Status& read, const v1::GenerateRequest& request);

 protected:
  // Reads what the stream has; called with mu_ held, a stream, and not ended.
  virtual void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  virtual void SendStatus(const grpc::Status& status) = 0;

  // Ends the call, once.
  void EndLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void HandleCancel();
  void HandleDone();

  Mutex mu_;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<TokenStream> stream_ ABSL_GUARDED_BY(mu_);
  EventContext events_ ABSL_GUARDED_BY(mu_);
  int32_t candidates_ ABSL_GUARDED_BY(mu_) = 1;

 private:
  void Admit(const GenerateInput& input);
  void Wake();
  void Pump();

  grpc::CallbackServerContext& context_;
  GenerateService& service_;
  const GenerateQueues queues_;
  std::atomic<bool> awake_ = false;
  std::shared_ptr<GenerateCall> self_;
};

void GenerateCall::Start(const absl::Status& read,
                         const v1::GenerateRequest& request) {
  self_ = shared_from_this();
  absl::StatusOr<std::string> id =
      SetRequestId(context_, read.ok() ? request.request_id() : "");
  absl::StatusOr<GenerateInput> input =
      !read.ok() ? absl::StatusOr<GenerateInput>(read)
      : !id.ok() ? absl::StatusOr<GenerateInput>(id.status())
                 : ToGenerateInput(request);
  {
    MutexLock lock(&mu_);
    if (!input.ok()) {
      EndLocked(input.status());
      return;
    }
    // Without a key of the caller's each request is on its own.
    if (input->routing_key.empty()) input->routing_key = *id;
    events_.request_id = *std::move(id);
    events_.omit_token_ids = request.output().omit_token_ids();
    events_.token_bytes = [&service = service_](Token token) {
      return service.TokenBytes(token);
    };
  }
  const bool is_long =
      input->text.has_value() && input->text->size() > kLongPromptBytes;
  if (!is_long) {
    Admit(*input);
    return;
  }
  const auto shared = std::make_shared<GenerateInput>(*std::move(input));
  if (!queues_.admit.TryAdd([self = self_, shared] { self->Admit(*shared); })) {
    MutexLock lock(&mu_);
    EndLocked(WithReason(absl::ResourceExhaustedError(
                             "too many long prompts wait to be tokenized"),
                         "QUEUE_FULL"));
  }
}

void GenerateCall::Admit(const GenerateInput& input) {
  absl::StatusOr<Generation> generation = service_.Generate(input);
  std::shared_ptr<TokenStream> stream;
  {
    MutexLock lock(&mu_);
    if (!generation.ok()) {
      EndLocked(generation.status());
      return;
    }
    stream = generation->stream;
    if (ended_) {  // cancelled meanwhile
      stream->Cancel();
      return;
    }
    events_.adapters = std::move(generation->adapters);
    events_.names_parts = !input.adapters.empty();
    candidates_ = generation->candidates;
    stream_ = stream;
  }
  stream->SetCallback([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->Wake();
  });
}

void GenerateCall::Wake() {
  if (awake_.exchange(true)) return;
  // The queue refuses only while it is destroyed: no call is left then.
  queues_.pump.TryAdd([self = shared_from_this()] {
    self->awake_ = false;
    self->Pump();
  });
}

void GenerateCall::Pump() {
  MutexLock lock(&mu_);
  if (!ended_ && stream_ != nullptr) PumpLocked();
}

void GenerateCall::EndLocked(const absl::Status& status) {
  if (ended_) return;
  ended_ = true;
  if (stream_ != nullptr) {
    stream_->SetCallback(nullptr);
    stream_->Cancel();  // harmless at the end
  }
  SendStatus(ToGrpcStatus(status));
}

void GenerateCall::HandleCancel() {
  MutexLock lock(&mu_);
  EndLocked(LimitsOf(context_).timeout <= absl::ZeroDuration()
                ? absl::DeadlineExceededError("the call's deadline passed")
                : absl::CancelledError("the caller cancelled"));
}

void GenerateCall::HandleDone() {
  const std::shared_ptr<GenerateCall> self = std::move(self_);
}

// Generate: one message an event.
class StreamCall final : public GenerateCall,
                         public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  using GenerateCall::GenerateCall;

  void OnWriteDone(bool ok) override {
    MutexLock lock(&mu_);
    writing_ = false;
    if (ended_) return;
    if (!ok) {
      EndLocked(absl::CancelledError("the caller went away"));
      return;
    }
    PumpLocked();
  }
  void OnCancel() override { HandleCancel(); }
  void OnDone() override { HandleDone(); }

 private:
  void PumpLocked() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (writing_) {
      // A reader that stalls can still be told that its stream has failed.
      if (stream_->done() && !stream_->status().ok()) {
        EndLocked(stream_->status());
      }
      return;
    }
    if (const std::optional<StreamEvent> event = stream_->Next()) {
      writing_ = true;
      message_ = ToByteBuffer(ToMessage(*event));
      StartWrite(&message_);
    } else if (stream_->done()) {
      EndLocked(stream_->status());
    }
  }
  void SendStatus(const grpc::Status& status) override { Finish(status); }

  v1::GenerateResponse ToMessage(const StreamEvent& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    v1::GenerateResponse message;
    if (const auto* started = std::get_if<StartedEvent>(&event)) {
      ToProto(*started, events_, message.mutable_started());
    } else if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
      ToProto(*delta, events_, message.mutable_delta());
    } else {
      ToProto(std::get<FinishedEvent>(event), message.mutable_finished());
    }
    return message;
  }

  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  grpc::ByteBuffer message_;  // of the write in flight
};

// GenerateUnary: everything in one message.
class UnaryCall final : public GenerateCall, public grpc::ServerUnaryReactor {
 public:
  UnaryCall(grpc::CallbackServerContext& context, GenerateService& service,
            const GenerateQueues& queues, grpc::ByteBuffer* out)
      : GenerateCall(context, service, queues), out_(out) {}

  void OnCancel() override { HandleCancel(); }
  void OnDone() override { HandleDone(); }

 private:
  void PumpLocked() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    while (const std::optional<StreamEvent> event = stream_->Next()) {
      Take(*event);
    }
    if (!stream_->done()) return;
    if (stream_->status().ok()) *out_ = ToByteBuffer(response_);
    EndLocked(stream_->status());
  }
  void SendStatus(const grpc::Status& status) override { Finish(status); }

  v1::Candidate* CandidateAt(int32_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    while (response_.candidates_size() < candidates_) {
      const auto next = static_cast<uint32_t>(response_.candidates_size());
      response_.add_candidates()->mutable_output()->set_index(next);
    }
    return response_.mutable_candidates(index);
  }

  void Take(const StreamEvent& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (const auto* started = std::get_if<StartedEvent>(&event)) {
      ToProto(*started, events_, response_.mutable_started());
    } else if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
      v1::TokenDelta message;
      ToProto(*delta, events_, &message);
      Append(std::move(message),
             CandidateAt(delta->candidate)->mutable_output());
    } else {
      const auto& finished = std::get<FinishedEvent>(event);
      v1::GenerationFinished* const message =
          CandidateAt(finished.candidate)->mutable_finished();
      ToProto(finished, message);
      v1::Usage* const total = response_.mutable_usage();
      total->set_prompt_tokens(message->usage().prompt_tokens());
      total->set_cached_tokens(response_.started().cached_tokens());
      total->set_completion_tokens(total->completion_tokens() +
                                   message->usage().completion_tokens());
    }
  }

  grpc::ByteBuffer* const out_;
  v1::GenerateUnaryResponse response_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* StartGenerate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
    GenerateService& service, const GenerateQueues& queues) {
  v1::GenerateRequest request;
  const absl::Status read = ReadRequest(*in, &request);
  const auto call = std::make_shared<StreamCall>(*context, service, queues);
  call->Start(read, request);
  return call.get();
}

grpc::ServerUnaryReactor* StartGenerateUnary(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
    grpc::ByteBuffer* out, GenerateService& service,
    const GenerateQueues& queues) {
  v1::GenerateUnaryRequest request;
  const absl::Status read = ReadRequest(*in, &request);
  const auto call = std::make_shared<UnaryCall>(*context, service, queues, out);
  call->Start(read, request.request());
  return call.get();
}

}  // namespace lorikeet
