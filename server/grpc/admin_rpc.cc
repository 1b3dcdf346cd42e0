#include "server/grpc/admin_rpc.h"

#include <grpcpp/alarm.h>

#include <memory>
#include <optional>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "lorikeet/v1/admin.grpc.pb.h"
#include "server/grpc/call.h"
#include "server/grpc/convert.h"
#include "server/grpc/convert_merges.h"

namespace lorikeet {
namespace {

using Stub = v1::AdminService;
using RawService = Stub::WithRawCallbackMethod_GetServerInfo<
    Stub::WithRawCallbackMethod_GetLoad<Stub::WithRawCallbackMethod_WatchLoad<
        Stub::WithRawCallbackMethod_DrainServer<
            Stub::WithRawCallbackMethod_FlushCache<
                Stub::WithRawCallbackMethod_GetMergeState<
                    Stub::WithRawCallbackMethod_VerifyBase<Stub::Service>>>>>>>;

using Context = grpc::CallbackServerContext;
using Bytes = grpc::ByteBuffer;
using Unary = grpc::ServerUnaryReactor;

constexpr absl::Duration kDefaultInterval = absl::Seconds(1);
constexpr absl::Duration kMinInterval = absl::Milliseconds(100);
constexpr absl::Duration kMaxInterval = absl::Hours(1);
constexpr absl::Duration kMaxDrain = absl::Hours(24);

// WatchLoad: a write, then the interval by an alarm, and so on until the caller
// cancels.
class LoadWatchCall final : public grpc::ServerWriteReactor<Bytes>,
                            public std::enable_shared_from_this<LoadWatchCall> {
 public:
  explicit LoadWatchCall(AdminService& service) : service_(service) {}

  void Start(const absl::StatusOr<absl::Duration>& interval) {
    self_ = shared_from_this();
    MutexLock lock(&mu_);
    if (!interval.ok()) {
      EndLocked(interval.status());
      return;
    }
    interval_ = *interval;
    WriteLocked();
  }

  void OnWriteDone(bool ok) override {
    MutexLock lock(&mu_);
    if (ended_) return;
    if (!ok) {
      EndLocked(absl::CancelledError("the caller went away"));
      return;
    }
    const gpr_timespec at =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                     gpr_time_from_millis(absl::ToInt64Milliseconds(interval_),
                                          GPR_TIMESPAN));
    // Weak: the alarm keeps its callback, and this keeps the alarm.
    alarm_.Set(at, [weak = weak_from_this()](bool fired) {
      const std::shared_ptr<LoadWatchCall> self = weak.lock();
      if (self == nullptr) return;
      MutexLock alarm_lock(&self->mu_);
      if (fired && !self->ended_) self->WriteLocked();
    });
  }
  void OnCancel() override {
    MutexLock lock(&mu_);
    EndLocked(absl::CancelledError("the caller cancelled"));
  }
  void OnDone() override {
    const std::shared_ptr<LoadWatchCall> self = std::move(self_);
    alarm_.Cancel();
  }

 private:
  void WriteLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    v1::Load load;
    ToProto(service_.Load(), &load);
    message_ = ToByteBuffer(load);
    StartWrite(&message_);
  }
  void EndLocked(const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (ended_) return;
    ended_ = true;
    Finish(ToGrpcStatus(status));
  }

  AdminService& service_;
  std::shared_ptr<LoadWatchCall> self_;
  Mutex mu_;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  absl::Duration interval_ ABSL_GUARDED_BY(mu_);
  Bytes message_;  // of the write in flight
  grpc::Alarm alarm_;
};

class AdminRpc final : public RawService {
 public:
  AdminRpc(AdminService& service, BackgroundQueue& small, BackgroundQueue& slow)
      : service_(service), small_(small), slow_(slow) {}

  Unary* GetServerInfo(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::GetServerInfoRequest, v1::GetServerInfoResponse>(
        context, in, out, small_,
        [this](const v1::GetServerInfoRequest&,
               const CallLimits&) -> absl::StatusOr<v1::GetServerInfoResponse> {
          v1::GetServerInfoResponse response;
          ToProto(service_, &response);
          return response;
        });
  }

  Unary* GetLoad(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::GetLoadRequest, v1::Load>(
        context, in, out, small_,
        [this](const v1::GetLoadRequest&,
               const CallLimits&) -> absl::StatusOr<v1::Load> {
          v1::Load load;
          ToProto(service_.Load(), &load);
          return load;
        });
  }

  grpc::ServerWriteReactor<Bytes>* WatchLoad(Context* context,
                                             const Bytes* in) override {
    const auto call = std::make_shared<LoadWatchCall>(service_);
    call->Start(ReadInterval(*context, *in));
    return call.get();
  }

  Unary* DrainServer(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::DrainServerRequest, v1::DrainServerResponse>(
        context, in, out, slow_,
        [this](const v1::DrainServerRequest& request,
               const CallLimits& limits) { return Drain(request, limits); });
  }

  Unary* FlushCache(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::FlushCacheRequest, v1::FlushCacheResponse>(
        context, in, out, slow_,
        [this](const v1::FlushCacheRequest&,
               const CallLimits&) -> absl::StatusOr<v1::FlushCacheResponse> {
          v1::FlushCacheResponse response;
          response.set_freed_blocks(
              static_cast<uint64_t>(service_.FlushCache()));
          return response;
        });
  }

  Unary* GetMergeState(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::GetMergeStateRequest, v1::MergeState>(
        context, in, out, small_,
        [this](const v1::GetMergeStateRequest&,
               const CallLimits&) -> absl::StatusOr<v1::MergeState> {
          v1::MergeState state;
          ToProto(service_.Merges(), &state);
          return state;
        });
  }

  Unary* VerifyBase(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::VerifyBaseRequest, v1::VerifyBaseResponse>(
        context, in, out, slow_,
        [this](const v1::VerifyBaseRequest&,
               const CallLimits&) -> absl::StatusOr<v1::VerifyBaseResponse> {
          ASSIGN_OR_RETURN(const BaseVerifier::Report report,
                           service_.VerifyBase());
          v1::VerifyBaseResponse response;
          ToProto(report, &response);
          return response;
        });
  }

 private:
  static absl::StatusOr<absl::Duration> ReadInterval(Context& context,
                                                     const Bytes& in) {
    v1::WatchLoadRequest request;
    RETURN_IF_ERROR(SetRequestId(context).status());
    RETURN_IF_ERROR(ReadRequest(in, &request));
    if (!request.has_interval()) return kDefaultInterval;
    return ToDuration("interval", request.interval(), kMinInterval,
                      kMaxInterval);
  }

  absl::StatusOr<v1::DrainServerResponse> Drain(
      const v1::DrainServerRequest& request, const CallLimits& limits) {
    std::optional<absl::Duration> timeout;
    if (request.has_timeout()) {
      ASSIGN_OR_RETURN(timeout, ToDuration("timeout", request.timeout(),
                                           absl::ZeroDuration(), kMaxDrain));
    }
    v1::DrainServerResponse response;
    response.set_remaining_requests(
        static_cast<uint32_t>(service_.Drain(timeout, limits.cancelled)));
    return response;
  }

  AdminService& service_;
  BackgroundQueue& small_;
  BackgroundQueue& slow_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewAdminRpc(AdminService& service,
                                           BackgroundQueue& small,
                                           BackgroundQueue& slow) {
  return std::make_unique<AdminRpc>(service, small, slow);
}

}  // namespace lorikeet
