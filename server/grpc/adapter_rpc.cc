#include "server/grpc/adapter_rpc.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "google/protobuf/empty.pb.h"
#include "lorikeet/v1/adapters.grpc.pb.h"
#include "server/frontend/error.h"
#include "server/grpc/adapter_watch.h"
#include "server/grpc/call.h"
#include "server/grpc/convert.h"
#include "server/grpc/convert_aliases.h"
#include "server/grpc/page.h"
#include "server/grpc/upload_reactor.h"

namespace lorikeet {
namespace {

using google::protobuf::Empty;
using Stub = v1::AdapterService;

// The methods, outermost first; gRPC's generated templates nest.
using RawRollouts = Stub::WithRawCallbackMethod_PromoteAlias<
    Stub::WithRawCallbackMethod_RollBackAlias<
        Stub::WithRawCallbackMethod_ListAuditEntries<Stub::Service>>>;
using RawAliases =
    Stub::WithRawCallbackMethod_SetAlias<Stub::WithRawCallbackMethod_GetAlias<
        Stub::WithRawCallbackMethod_ListAliases<
            Stub::WithRawCallbackMethod_DeleteAlias<RawRollouts>>>>;
using RawStreams = Stub::WithRawCallbackMethod_WatchAdapters<
    Stub::WithRawCallbackMethod_UploadAdapter<RawAliases>>;
using RawResidency = Stub::WithRawCallbackMethod_LoadAdapter<
    Stub::WithRawCallbackMethod_UnloadAdapter<RawStreams>>;
using RawReads = Stub::WithRawCallbackMethod_GetAdapter<
    Stub::WithRawCallbackMethod_ListAdapters<
        Stub::WithRawCallbackMethod_ListAdapterVersions<RawResidency>>>;
using RawService = Stub::WithRawCallbackMethod_CreateAdapter<
    Stub::WithRawCallbackMethod_UpdateAdapter<
        Stub::WithRawCallbackMethod_DeleteAdapter<RawReads>>>;

using Context = grpc::CallbackServerContext;
using Bytes = grpc::ByteBuffer;
using Unary = grpc::ServerUnaryReactor;

// Longest drain that a call may ask for.
constexpr absl::Duration kMaxDrain = absl::Hours(24);
// Of a reason for the audit trail.
constexpr size_t kMaxReasonBytes = 256;

template <typename Request>
absl::StatusOr<std::optional<absl::Duration>> DrainTimeout(
    const Request& request) {
  if (!request.has_drain_timeout()) return std::optional<absl::Duration>();
  ASSIGN_OR_RETURN(const absl::Duration timeout,
                   ToDuration("drain_timeout", request.drain_timeout(),
                              absl::ZeroDuration(), kMaxDrain));
  return std::optional<absl::Duration>(timeout);
}

bool NameBefore(const std::string& a, const std::string& b) { return a < b; }

class AdapterRpc final : public RawService {
 public:
  AdapterRpc(AdapterService& service, const ModelInfo& model,
             const AdapterQueues& queues)
      : service_(service),
        model_(model),
        queues_(queues),
        watch_(service, model, queues.small) {}

  Unary* CreateAdapter(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::CreateAdapterRequest, v1::Adapter>(
        context, in, out, queues_.slow,
        [this](const v1::CreateAdapterRequest& request,
               const CallLimits& limits) -> absl::StatusOr<v1::Adapter> {
          ASSIGN_OR_RETURN(const CreateAdapterInput input,
                           ToCreateInput(request, limits.actor));
          return ToMessage(service_.Create(input));
        });
  }

  Unary* UpdateAdapter(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::UpdateAdapterRequest, v1::Adapter>(
        context, in, out, queues_.slow,
        [this](const v1::UpdateAdapterRequest& request,
               const CallLimits& limits) -> absl::StatusOr<v1::Adapter> {
          ASSIGN_OR_RETURN(const UpdateAdapterInput input,
                           ToUpdateInput(request, limits.actor));
          return ToMessage(service_.Update(input));
        });
  }

  Unary* DeleteAdapter(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::DeleteAdapterRequest, Empty>(
        context, in, out, queues_.slow,
        [this](const v1::DeleteAdapterRequest& request,
               const CallLimits& limits) { return Delete(request, limits); });
  }

  Unary* GetAdapter(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::GetAdapterRequest, v1::Adapter>(
        context, in, out, queues_.small,
        [this](const v1::GetAdapterRequest& request,
               const CallLimits&) -> absl::StatusOr<v1::Adapter> {
          ASSIGN_OR_RETURN(const ResourceName name,
                           ParseName("name", "adapters", request.name()));
          return ToMessage(service_.Get(name.tenant, name.id));
        });
  }

  Unary* ListAdapters(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::ListAdaptersRequest, v1::ListAdaptersResponse>(
        context, in, out, queues_.small,
        [this](const v1::ListAdaptersRequest& request, const CallLimits&) {
          return List(request);
        });
  }

  Unary* ListAdapterVersions(Context* context, const Bytes* in,
                             Bytes* out) override {
    return RunUnary<v1::ListAdapterVersionsRequest,
                    v1::ListAdapterVersionsResponse>(
        context, in, out, queues_.small,
        [this](const v1::ListAdapterVersionsRequest& request,
               const CallLimits&) { return ListVersions(request); });
  }

  Unary* LoadAdapter(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::LoadAdapterRequest, v1::Adapter>(
        context, in, out, queues_.slow,
        [this](const v1::LoadAdapterRequest& request,
               const CallLimits& limits) { return Load(request, limits); });
  }

  Unary* UnloadAdapter(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::UnloadAdapterRequest, v1::Adapter>(
        context, in, out, queues_.slow,
        [this](const v1::UnloadAdapterRequest& request,
               const CallLimits& limits) { return Unload(request, limits); });
  }

  grpc::ServerWriteReactor<Bytes>* WatchAdapters(Context* context,
                                                 const Bytes* in) override {
    return watch_.Start(context, in);
  }

  grpc::ServerReadReactor<Bytes>* UploadAdapter(Context* context,
                                                Bytes* out) override {
    return StartUpload(context, out, service_, model_, queues_.upload);
  }

  Unary* SetAlias(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::SetAliasRequest, v1::Alias>(
        context, in, out, queues_.small,
        [this](const v1::SetAliasRequest& request,
               const CallLimits& limits) -> absl::StatusOr<v1::Alias> {
          ASSIGN_OR_RETURN(const AliasInput input,
                           ToAliasInput(request.alias(), limits.actor));
          return ToMessage(service_.SetAlias(input));
        });
  }

  Unary* GetAlias(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::GetAliasRequest, v1::Alias>(
        context, in, out, queues_.small,
        [this](const v1::GetAliasRequest& request,
               const CallLimits&) -> absl::StatusOr<v1::Alias> {
          ASSIGN_OR_RETURN(const ResourceName name,
                           ParseName("name", "aliases", request.name()));
          return ToMessage(service_.GetAlias(name.tenant, name.id));
        });
  }

  Unary* ListAliases(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::ListAliasesRequest, v1::ListAliasesResponse>(
        context, in, out, queues_.small,
        [this](const v1::ListAliasesRequest& request, const CallLimits&) {
          return ListAll(request);
        });
  }

  Unary* DeleteAlias(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::DeleteAliasRequest, Empty>(
        context, in, out, queues_.small,
        [this](const v1::DeleteAliasRequest& request,
               const CallLimits& limits) -> absl::StatusOr<Empty> {
          ASSIGN_OR_RETURN(const ResourceName name,
                           ParseName("name", "aliases", request.name()));
          ASSIGN_OR_RETURN(const std::optional<uint64_t> etag,
                           ParseEtag(request.etag()));
          RETURN_IF_ERROR(
              service_.DeleteAlias(name.tenant, name.id, {etag, limits.actor}));
          return Empty();
        });
  }

  Unary* PromoteAlias(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::PromoteAliasRequest, v1::Alias>(
        context, in, out, queues_.small,
        [this](const v1::PromoteAliasRequest& request,
               const CallLimits& limits) -> absl::StatusOr<v1::Alias> {
          ASSIGN_OR_RETURN(const ResourceName name,
                           ParseName("name", "aliases", request.name()));
          ASSIGN_OR_RETURN(const std::optional<uint64_t> etag,
                           ParseEtag(request.etag()));
          return ToMessage(service_.PromoteAlias(
              name.tenant, name.id, request.version(), {etag, limits.actor}));
        });
  }

  Unary* RollBackAlias(Context* context, const Bytes* in, Bytes* out) override {
    return RunUnary<v1::RollBackAliasRequest, v1::Alias>(
        context, in, out, queues_.small,
        [this](const v1::RollBackAliasRequest& request,
               const CallLimits& limits) -> absl::StatusOr<v1::Alias> {
          ASSIGN_OR_RETURN(const ResourceName name,
                           ParseName("name", "aliases", request.name()));
          ASSIGN_OR_RETURN(const std::optional<uint64_t> etag,
                           ParseEtag(request.etag()));
          if (request.reason().size() > kMaxReasonBytes) {
            return RangeError("reason length",
                              absl::StrCat(request.reason().size()),
                              absl::StrCat("[0, ", kMaxReasonBytes, "] bytes"));
          }
          return ToMessage(service_.RollBackAlias(
              name.tenant, name.id, {etag, limits.actor, request.reason()}));
        });
  }

  Unary* ListAuditEntries(Context* context, const Bytes* in,
                          Bytes* out) override {
    return RunUnary<v1::ListAuditEntriesRequest, v1::ListAuditEntriesResponse>(
        context, in, out, queues_.small,
        [this](const v1::ListAuditEntriesRequest& request, const CallLimits&) {
          return ListAudit(request);
        });
  }

 private:
  absl::StatusOr<v1::Adapter> ToMessage(
      const absl::StatusOr<AdapterInfo>& info) {
    if (!info.ok()) return info.status();
    v1::Adapter adapter;
    ToProto(*info, model_, service_.LoadError(*info), &adapter);
    return adapter;
  }

  static absl::StatusOr<v1::Alias> ToMessage(
      const absl::StatusOr<AliasView>& view) {
    if (!view.ok()) return view.status();
    v1::Alias alias;
    ToProto(*view, &alias);
    return alias;
  }

  absl::StatusOr<Empty> Delete(const v1::DeleteAdapterRequest& request,
                               const CallLimits& limits) {
    ASSIGN_OR_RETURN(const ResourceName name,
                     ParseName("name", "adapters", request.name()));
    ASSIGN_OR_RETURN(const std::optional<uint64_t> etag,
                     ParseEtag(request.etag()));
    ASSIGN_OR_RETURN(const std::optional<absl::Duration> timeout,
                     DrainTimeout(request));
    const absl::Status status =
        service_.Delete(name.tenant, name.id, etag,
                        ToPolicy(request.in_flight()), timeout, limits);
    if (absl::IsNotFound(status) && request.allow_missing()) return Empty();
    RETURN_IF_ERROR(status);
    return Empty();
  }

  absl::StatusOr<v1::Adapter> Load(const v1::LoadAdapterRequest& request,
                                   const CallLimits& limits) {
    ASSIGN_OR_RETURN(const ResourceName name,
                     ParseName("name", "adapters", request.name()));
    ASSIGN_OR_RETURN(const Tier tier,
                     ToTier("tier", request.tier(), Tier::kDevice));
    std::optional<bool> pinned;
    if (request.has_pinned()) pinned = request.pinned();
    return ToMessage(service_.Load(name.tenant, name.id, tier, pinned, limits));
  }

  absl::StatusOr<v1::Adapter> Unload(const v1::UnloadAdapterRequest& request,
                                     const CallLimits& limits) {
    ASSIGN_OR_RETURN(const ResourceName name,
                     ParseName("name", "adapters", request.name()));
    ASSIGN_OR_RETURN(const Tier tier,
                     ToTier("tier", request.tier(), Tier::kDisk));
    ASSIGN_OR_RETURN(const std::optional<absl::Duration> timeout,
                     DrainTimeout(request));
    ASSIGN_OR_RETURN(
        const AdapterService::Unloaded unloaded,
        service_.Unload(name.tenant, name.id, tier,
                        ToPolicy(request.in_flight()), timeout, limits));
    ASSIGN_OR_RETURN(v1::Adapter adapter, ToMessage(unloaded.info));
    adapter.set_freed_bytes(static_cast<uint64_t>(unloaded.freed_bytes));
    return adapter;
  }

  absl::StatusOr<v1::ListAdaptersResponse> List(
      const v1::ListAdaptersRequest& request) {
    ASSIGN_OR_RETURN(const std::string tenant,
                     ParseTenant("parent", request.parent()));
    ASSIGN_OR_RETURN(const int32_t size, PageSize(request.page_size()));
    // One more tells whether there is another page.
    ASSIGN_OR_RETURN(AdapterStore::AdapterPage page,
                     service_.List(tenant, request.page_token(), size + 1));
    v1::ListAdaptersResponse response;
    response.set_total_size(static_cast<int32_t>(page.total));
    if (page.adapters.size() > static_cast<size_t>(size)) {
      page.adapters.pop_back();
      response.set_next_page_token(page.adapters.back().name);
    }
    for (const AdapterInfo& info : page.adapters) {
      ToProto(info, model_, service_.LoadError(info), response.add_adapters());
    }
    return response;
  }

  absl::StatusOr<v1::ListAdapterVersionsResponse> ListVersions(
      const v1::ListAdapterVersionsRequest& request) {
    ASSIGN_OR_RETURN(const ResourceName name,
                     ParseName("parent", "adapters", request.parent()));
    ASSIGN_OR_RETURN(std::vector<AdapterVersionInfo> all,
                     service_.ListVersions(name.tenant, name.id));
    uint32_t token = 0;
    if (!request.page_token().empty() &&
        !absl::SimpleAtoi(request.page_token(), &token)) {
      return FieldError("page_token", "is none that the server gave");
    }
    ASSIGN_OR_RETURN(
        const Page<AdapterVersionInfo> page,
        CutPage<AdapterVersionInfo>(
            std::move(all), request.page_size(), request.page_token(),
            [](const AdapterVersionInfo& info) {
              return absl::StrCat(info.key.version);
            },
            [token](const std::string&, const std::string& b) {
              uint32_t number = 0;  // newest first
              return absl::SimpleAtoi(b, &number) && number < token;
            }));
    v1::ListAdapterVersionsResponse response;
    for (const AdapterVersionInfo& info : page.entries) {
      ToProto(info, response.add_versions());
    }
    response.set_next_page_token(page.next_page_token);
    return response;
  }

  absl::StatusOr<v1::ListAliasesResponse> ListAll(
      const v1::ListAliasesRequest& request) {
    ASSIGN_OR_RETURN(const std::string tenant,
                     ParseTenant("parent", request.parent()));
    ASSIGN_OR_RETURN(std::vector<AliasView> all, service_.ListAliases(tenant));
    ASSIGN_OR_RETURN(
        const Page<AliasView> page,
        CutPage<AliasView>(
            std::move(all), request.page_size(), request.page_token(),
            [](const AliasView& view) { return view.info.name; }, NameBefore));
    v1::ListAliasesResponse response;
    for (const AliasView& view : page.entries) {
      ToProto(view, response.add_aliases());
    }
    response.set_next_page_token(page.next_page_token);
    return response;
  }

  absl::StatusOr<v1::ListAuditEntriesResponse> ListAudit(
      const v1::ListAuditEntriesRequest& request) {
    AuditQuery query;
    ASSIGN_OR_RETURN(query.tenant, ParseTenant("parent", request.parent()));
    query.name = request.resource();
    ASSIGN_OR_RETURN(query.limit, PageSize(request.page_size()));
    if (!request.page_token().empty() &&
        !absl::SimpleAtoi(request.page_token(), &query.before)) {
      return FieldError("page_token", "is none that the server gave");
    }
    ASSIGN_OR_RETURN(const AuditPage page, service_.ReadAudit(query));
    v1::ListAuditEntriesResponse response;
    for (const AuditEntry& entry : page.entries) {
      ToProto(entry, response.add_entries());
    }
    if (page.has_more) {
      response.set_next_page_token(absl::StrCat(page.entries.back().id));
    }
    return response;
  }

  AdapterService& service_;
  const ModelInfo& model_;
  const AdapterQueues queues_;
  AdapterWatch watch_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewAdapterRpc(AdapterService& service,
                                             const ModelInfo& model,
                                             const AdapterQueues& queues) {
  return std::make_unique<AdapterRpc>(service, model, queues);
}

}  // namespace lorikeet
