#include "server/grpc/adapter_watch.h"

#include <deque>
#include <utility>

#include "base/reason.h"
#include "base/status.h"
#include "lorikeet/v1/adapters.pb.h"
#include "server/grpc/call.h"
#include "server/grpc/convert.h"

namespace lorikeet {
namespace {

// How long the thread waits for an event before it looks whether it shall end.
constexpr absl::Duration kWait = absl::Milliseconds(200);
// A bookmark as a sign of life after so many waits: 10 s.
constexpr int kWaitsPerBookmark = 50;

}  // namespace

// One call. Work happens on the queue and in write reactions; mu_ orders them.
class AdapterWatch::Call final
    : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
      public std::enable_shared_from_this<Call> {
 public:
  explicit Call(AdapterWatch& watch) : watch_(watch) {}

  void Start(const absl::Status& read,
             const v1::WatchAdaptersRequest& request) {
    self_ = shared_from_this();
    absl::StatusOr<std::string> tenant =
        read.ok() ? ParseTenant("parent", request.parent())
                  : absl::StatusOr<std::string>(read);
    if (!tenant.ok()) {
      MutexLock lock(&mu_);
      EndLocked(tenant.status());
      return;
    }
    const bool added = watch_.queue_.TryAdd(
        [self = self_, tenant = *std::move(tenant),
         after = request.resume_after()] { self->SendInitial(tenant, after); });
    if (!added) {
      MutexLock lock(&mu_);
      EndLocked(QueueFull());
    }
  }

  // Fetches events if there is nothing to send; `bookmark` then says the
  // current number.
  void Wake(bool bookmark) {
    MutexLock lock(&mu_);
    if (!ready_ || ended_ || writing_) return;
    PumpLocked();
    if (bookmark && !writing_ && !ended_) {
      AddBookmarkLocked();
      PumpLocked();
    }
  }

  void OnWriteDone(bool ok) override {
    MutexLock lock(&mu_);
    writing_ = false;
    if (ended_) return;
    if (ok) {
      PumpLocked();
    } else {
      EndLocked(absl::CancelledError("the caller went away"));
    }
  }
  void OnCancel() override {
    MutexLock lock(&mu_);
    EndLocked(absl::CancelledError("the caller cancelled"));
  }
  void OnDone() override {
    const std::shared_ptr<Call> self = std::move(self_);
  }

 private:
  void SendInitial(const std::string& tenant, uint64_t after) {
    // The number comes first: a change meanwhile is sent once more, not lost.
    const uint64_t sequence = watch_.service_.last_event();
    absl::StatusOr<std::vector<AdapterInfo>> adapters =
        watch_.service_.ListAll(tenant);
    MutexLock lock(&mu_);
    if (ended_) return;
    if (!adapters.ok()) {
      EndLocked(adapters.status());
      return;
    }
    tenant_ = tenant;
    after_ = after == 0 ? sequence : after;
    ready_ = true;
    if (after == 0) {
      for (const AdapterInfo& adapter : *adapters) {
        AddLocked(sequence, v1::WatchAdaptersResponse::KIND_ADDED, adapter);
      }
      AddBookmarkLocked();
    }
    PumpLocked();
  }

  void AddLocked(uint64_t sequence, v1::WatchAdaptersResponse::Kind kind,
                 const AdapterInfo& adapter)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    v1::WatchAdaptersResponse message;
    message.set_sequence(sequence);
    message.set_kind(kind);
    ToProto(adapter, watch_.model_, watch_.service_.LoadError(adapter),
            message.mutable_adapter());
    pending_.push_back(ToByteBuffer(message));
  }
  void AddBookmarkLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    v1::WatchAdaptersResponse message;
    message.set_sequence(after_);
    message.set_kind(v1::WatchAdaptersResponse::KIND_BOOKMARK);
    pending_.push_back(ToByteBuffer(message));
  }

  void FetchLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const absl::StatusOr<std::vector<AdapterEvent>> events =
        watch_.service_.WaitForEvents(after_, absl::ZeroDuration());
    if (!events.ok()) {
      EndLocked(WithDefaultReason(events.status(), "EVENT_TOO_OLD"));
      return;
    }
    for (const AdapterEvent& event : *events) {
      after_ = event.sequence;
      if (event.adapter.tenant != tenant_) continue;
      AddLocked(event.sequence, ToKind(event.kind), event.adapter);
    }
  }

  static v1::WatchAdaptersResponse::Kind ToKind(AdapterEvent::Kind kind) {
    switch (kind) {
      case AdapterEvent::Kind::kAdded:
        return v1::WatchAdaptersResponse::KIND_ADDED;
      case AdapterEvent::Kind::kModified:
        return v1::WatchAdaptersResponse::KIND_MODIFIED;
      case AdapterEvent::Kind::kDeleted:
        return v1::WatchAdaptersResponse::KIND_DELETED;
    }
    return v1::WatchAdaptersResponse::KIND_UNSPECIFIED;
  }

  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (writing_ || ended_) return;
    if (pending_.empty()) FetchLocked();
    if (pending_.empty() || ended_) return;
    writing_ = true;
    message_ = std::move(pending_.front());
    pending_.pop_front();
    StartWrite(&message_);
  }

  void EndLocked(const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (ended_) return;
    ended_ = true;
    Finish(ToGrpcStatus(status));
  }

  AdapterWatch& watch_;
  std::shared_ptr<Call> self_;
  Mutex mu_;
  bool ready_ ABSL_GUARDED_BY(mu_) = false;  // the initial set is known
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  std::string tenant_ ABSL_GUARDED_BY(mu_);
  uint64_t after_ ABSL_GUARDED_BY(mu_) = 0;  // last event in pending_ or sent
  std::deque<grpc::ByteBuffer> pending_ ABSL_GUARDED_BY(mu_);
  grpc::ByteBuffer message_;  // of the write in flight
};

AdapterWatch::AdapterWatch(AdapterService& service, const ModelInfo& model,
                           BackgroundQueue& queue)
    : service_(service), model_(model), queue_(queue) {
  thread_ =
      std::make_unique<BackgroundThread>("adapter-watch", [this] { Loop(); });
}

AdapterWatch::~AdapterWatch() {
  ending_ = true;
  thread_.reset();
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AdapterWatch::Start(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* in) {
  v1::WatchAdaptersRequest request;
  absl::Status status = SetRequestId(*context).status();
  if (status.ok()) status = ReadRequest(*in, &request);
  const auto call = std::make_shared<Call>(*this);
  {
    MutexLock lock(&mu_);
    calls_.push_back(call);
  }
  call->Start(status, request);
  return call.get();
}

std::vector<std::shared_ptr<AdapterWatch::Call>> AdapterWatch::Calls() {
  MutexLock lock(&mu_);
  std::vector<std::shared_ptr<Call>> calls;
  std::vector<std::weak_ptr<Call>> alive;
  for (const std::weak_ptr<Call>& weak : calls_) {
    if (std::shared_ptr<Call> call = weak.lock()) {
      calls.push_back(std::move(call));
      alive.push_back(weak);
    }
  }
  calls_ = std::move(alive);
  return calls;
}

void AdapterWatch::Loop() {
  uint64_t seen = service_.last_event();
  int waits = 0;
  while (!ending_) {
    const bool changed = service_.WaitForEvents(seen, kWait)
                             .value_or(std::vector<AdapterEvent>())
                             .size() > 0;
    seen = service_.last_event();
    const bool bookmark = ++waits % kWaitsPerBookmark == 0;
    // Also without a change: one may have come between the two lines above.
    for (const std::shared_ptr<Call>& call : Calls()) call->Wake(bookmark);
    if (changed) waits = 0;
  }
}

}  // namespace lorikeet
