#include "server/grpc/admin_rpc.h"

#include <memory>
#include <optional>
#include <utility>

#include "base/status.h"
#include "lorikeet/v1/admin.grpc.pb.h"
#include "server/grpc/call.h"
#include "server/grpc/convert.h"
#include "server/grpc/convert_merges.h"
#include "server/grpc/periodic_call.h"

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

constexpr absl::Duration kMaxDrain = absl::Hours(24);

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
    return PeriodicCall::Start(ReadInterval(*context, *in),
                               [this]() -> absl::StatusOr<PeriodicCall::Next> {
                                 v1::Load load;
                                 ToProto(service_.Load(), &load);
                                 return PeriodicCall::Next{ToByteBuffer(load)};
                               });
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
    return PeriodicCall::IntervalOf(request);
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
