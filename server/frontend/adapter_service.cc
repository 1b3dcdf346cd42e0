#include "server/frontend/adapter_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"
#include "server/frontend/error.h"
#include "server/frontend/generate_request.h"

namespace lorikeet {
namespace {

constexpr size_t kMaxDisplayNameBytes = 63;
constexpr size_t kMaxPathBytes = 4096;
// Requests that were told to end do so within a step; one that does not is a
// bug, and the caller should hear of it.
constexpr absl::Duration kAbortTimeout = absl::Seconds(30);
// Between two looks at whether requests still run.
constexpr absl::Duration kLookPeriod = absl::Milliseconds(10);
// A load is waited for in pieces, to notice that the caller went away.
constexpr absl::Duration kLoadPiece = absl::Milliseconds(250);
// Of LoadAdapter without a deadline.
constexpr absl::Duration kMaxLoadTime = absl::Minutes(10);

absl::string_view DefaultReason(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kNotFound:
      return "ADAPTER_NOT_FOUND";
    case absl::StatusCode::kAlreadyExists:
      return "ADAPTER_EXISTS";
    case absl::StatusCode::kAborted:
      return "ETAG_MISMATCH";
    case absl::StatusCode::kPermissionDenied:
      return "PATH_NOT_ALLOWED";
    case absl::StatusCode::kUnimplemented:
      return "ADAPTER_UNSUPPORTED";
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kDataLoss:
      return "ADAPTER_INVALID";
    case absl::StatusCode::kFailedPrecondition:
      return "ADAPTER_IN_USE";
    case absl::StatusCode::kDeadlineExceeded:
      return "ADAPTER_LOADING";
    default:
      return "ADAPTER_ERROR";
  }
}

// An error of the store with its resource, and a reason if it has none.
absl::Status About(const absl::Status& status, absl::string_view type,
                   const std::string& tenant, const std::string& name) {
  if (status.ok()) return status;
  absl::Status result = status;
  if (status.code() != absl::StatusCode::kInternal) {
    result = WithDefaultReason(std::move(result), DefaultReason(status.code()));
  }
  return WithResource(
      std::move(result), type,
      absl::StrCat("tenants/", tenant, "/",
                   type == "alias" ? "aliases/" : "adapters/", name));
}

absl::Status CheckDisplayName(const std::string& name) {
  if (name.size() > kMaxDisplayNameBytes) {
    return RangeError("adapter.display_name length", absl::StrCat(name.size()),
                      absl::StrCat("[0, ", kMaxDisplayNameBytes, "] bytes"));
  }
  return absl::OkStatus();
}

absl::Status CheckOrigin(const AdapterOrigin& origin, bool uploaded) {
  if (uploaded) {
    if (origin.path.empty()) return absl::OkStatus();
    return FieldError("adapter.source",
                      "must be empty for an upload but for expected_sha256");
  }
  if (origin.path.empty()) {
    return FieldError("adapter.source.local_path", "is missing");
  }
  if (origin.path.size() > kMaxPathBytes) {
    return RangeError("adapter.source.local_path length",
                      absl::StrCat(origin.path.size()),
                      absl::StrCat("[1, ", kMaxPathBytes, "] bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

AdapterService::AdapterService(const ModelInfo& model, AdapterStore& store,
                               Engine& engine, GoldenGate& gate,
                               const AliasMonitor& monitor, FileSystem& fs,
                               const Clock& clock, absl::Duration drain_timeout)
    : model_(model),
      store_(store),
      engine_(engine),
      gate_(gate),
      monitor_(monitor),
      fs_(fs),
      clock_(clock),
      drain_timeout_(drain_timeout) {}

absl::Status AdapterService::CheckTenant(const std::string& tenant) const {
  if (tenant == kDefaultTenant) return absl::OkStatus();
  return WithResource(
      WithReason(absl::NotFoundError(absl::StrCat(
                     "tenant ", Quote(tenant), " does not exist: the only one ",
                     "is ", Quote(kDefaultTenant))),
                 "TENANT_NOT_FOUND"),
      "tenant", absl::StrCat("tenants/", tenant));
}

absl::Status AdapterService::CheckName(const std::string& tenant,
                                       const std::string& name,
                                       absl::string_view field) const {
  RETURN_IF_ERROR(CheckTenant(tenant));
  return WithField(WithDefaultReason(CheckId(field, name), "INVALID_NAME"),
                   field);
}

absl::Status AdapterService::CheckRegistration(
    const std::string& tenant, const std::string& name,
    const std::string& base_model) const {
  RETURN_IF_ERROR(CheckName(tenant, name, "adapter_id"));
  if (name == model_.id) {
    return About(absl::AlreadyExistsError(absl::StrCat("name ", Quote(name),
                                                       " is the base model's")),
                 "adapter", tenant, name);
  }
  if (!base_model.empty() && base_model != model_.id) {
    return WithField(
        WithReason(absl::FailedPreconditionError(absl::StrCat(
                       "adapter.base_model ", Quote(base_model),
                       " is not the served one, ", Quote(model_.id))),
                   "ADAPTER_INCOMPATIBLE"),
        "adapter.base_model");
  }
  return absl::OkStatus();
}

absl::StatusOr<AdapterInfo> AdapterService::Register(
    AdapterStore::RegisterRequest request) {
  request.gate = [this](const VersionRef& version, absl::string_view golden) {
    return gate_.Check(version, golden);
  };
  absl::StatusOr<AdapterInfo> info = store_.Register(request);
  if (info.ok()) return info;
  absl::Status status = info.status();
  if (absl::IsResourceExhausted(status)) {
    status = WithDefaultReason(std::move(status), "DISK_FULL");
  }
  if (absl::IsPermissionDenied(status)) {
    status = WithField(std::move(status), "adapter.source.local_path");
  }
  return About(status, "adapter", request.tenant, request.name);
}

absl::StatusOr<AdapterInfo> AdapterService::CreateFrom(
    const CreateAdapterInput& input, const std::string& upload_dir) {
  RETURN_IF_ERROR(
      CheckRegistration(input.tenant, input.name, input.base_model));
  RETURN_IF_ERROR(CheckDisplayName(input.display_name));
  RETURN_IF_ERROR(CheckLabels("adapter.labels", input.labels));
  RETURN_IF_ERROR(CheckOrigin(input.origin, !upload_dir.empty()));
  AdapterStore::RegisterRequest request;
  request.tenant = input.tenant;
  request.name = input.name;
  request.display_name = input.display_name;
  request.labels = input.labels;
  request.path = input.origin.path;
  request.upload_dir = upload_dir;
  request.expected_sha256 = input.origin.expected_sha256;
  request.validate_only = input.validate_only;
  request.actor = input.actor;
  request.mode = AdapterStore::RegisterRequest::Mode::kCreate;
  ASSIGN_OR_RETURN(AdapterInfo info, Register(std::move(request)));
  if (!input.pinned || input.validate_only) return info;
  return store_.SetPinned(input.tenant, input.name, true);
}

absl::StatusOr<AdapterInfo> AdapterService::UpdateFrom(
    const UpdateAdapterInput& input, const std::string& upload_dir) {
  RETURN_IF_ERROR(
      CheckRegistration(input.tenant, input.name, input.base_model));
  RETURN_IF_ERROR(CheckDisplayName(input.display_name.value_or("")));
  RETURN_IF_ERROR(
      CheckLabels("adapter.labels", input.labels.value_or(Labels())));
  const bool uploaded = !upload_dir.empty();
  std::optional<uint64_t> etag = input.etag;
  absl::StatusOr<AdapterInfo> info = store_.Get(input.tenant, input.name);
  if (input.origin.has_value() || uploaded || input.allow_missing) {
    const AdapterOrigin origin = input.origin.value_or(AdapterOrigin());
    if (input.origin.has_value() || uploaded || !info.ok()) {
      RETURN_IF_ERROR(CheckOrigin(origin, uploaded));
      AdapterStore::RegisterRequest request;
      request.tenant = input.tenant;
      request.name = input.name;
      request.display_name = input.display_name.value_or("");
      request.labels = input.labels.value_or(Labels());
      request.path = origin.path;
      request.upload_dir = upload_dir;
      request.expected_sha256 = origin.expected_sha256;
      request.validate_only = input.validate_only;
      request.actor = input.actor;
      request.mode = input.allow_missing
                         ? AdapterStore::RegisterRequest::Mode::kCreateOrUpdate
                         : AdapterStore::RegisterRequest::Mode::kUpdate;
      request.etag = etag;
      info = Register(request);
      etag.reset();  // the mutation has changed it
    }
  }
  if (!info.ok()) {
    return About(info.status(), "adapter", input.tenant, input.name);
  }
  if (input.validate_only) return info;
  if (input.display_name.has_value() || input.labels.has_value()) {
    info = store_.UpdateMetadata(input.tenant, input.name, input.display_name,
                                 input.labels, etag);
    etag.reset();
  }
  if (info.ok() && etag.has_value() && *etag != info->etag) {
    info = absl::AbortedError(absl::StrCat(
        "adapter.etag ", *etag, " is not the current one, ", info->etag));
  }
  if (info.ok() && input.pinned.has_value()) {
    info = store_.SetPinned(input.tenant, input.name, *input.pinned);
  }
  if (!info.ok()) {
    return About(info.status(), "adapter", input.tenant, input.name);
  }
  return info;
}

absl::StatusOr<AdapterInfo> AdapterService::Create(
    const CreateAdapterInput& input) {
  return CreateFrom(input, "");
}

absl::StatusOr<AdapterInfo> AdapterService::Update(
    const UpdateAdapterInput& input) {
  return UpdateFrom(input, "");
}

absl::StatusOr<std::unique_ptr<AdapterUpload>> AdapterService::BeginUpload() {
  absl::StatusOr<std::string> dir = store_.NewUploadDir();
  if (!dir.ok()) {
    return absl::IsResourceExhausted(dir.status())
               ? WithDefaultReason(dir.status(), "DISK_FULL")
               : dir.status();
  }
  return std::make_unique<AdapterUpload>(fs_, store_, *std::move(dir),
                                         PeftLimits());
}

absl::StatusOr<AdapterInfo> AdapterService::FinishUpload(
    const CreateAdapterInput& input, AdapterUpload& upload) {
  RETURN_IF_ERROR(upload.Finish());
  return CreateFrom(input, upload.dir());
}

absl::StatusOr<AdapterInfo> AdapterService::FinishUpload(
    const UpdateAdapterInput& input, AdapterUpload& upload) {
  RETURN_IF_ERROR(upload.Finish());
  return UpdateFrom(input, upload.dir());
}

absl::StatusOr<AdapterInfo> AdapterService::Get(const std::string& tenant,
                                                const std::string& name) {
  RETURN_IF_ERROR(CheckName(tenant, name, "name"));
  absl::StatusOr<AdapterInfo> info = store_.Get(tenant, name);
  if (!info.ok()) return About(info.status(), "adapter", tenant, name);
  return info;
}

absl::StatusOr<std::vector<AdapterInfo>> AdapterService::List(
    const std::string& tenant) {
  RETURN_IF_ERROR(CheckTenant(tenant));
  std::vector<AdapterInfo> adapters = store_.List(tenant);
  std::sort(adapters.begin(), adapters.end(),
            [](const AdapterInfo& a, const AdapterInfo& b) {
              return a.name < b.name;
            });
  return adapters;
}

absl::StatusOr<std::vector<AdapterVersionInfo>> AdapterService::ListVersions(
    const std::string& tenant, const std::string& name) {
  RETURN_IF_ERROR(CheckName(tenant, name, "parent"));
  absl::StatusOr<std::vector<AdapterVersionInfo>> versions =
      store_.ListVersions(tenant, name);
  if (!versions.ok()) return About(versions.status(), "adapter", tenant, name);
  std::sort(versions->begin(), versions->end(),
            [](const AdapterVersionInfo& a, const AdapterVersionInfo& b) {
              return a.key.version > b.key.version;
            });
  return versions;
}

absl::Status AdapterService::WaitUntilUnused(
    const std::string& tenant, const std::string& name, InFlightPolicy policy,
    absl::Duration drain_timeout, const CallLimits& limits,
    const std::function<absl::Status()>& attempt) {
  const absl::Duration start = clock_.Now();
  const absl::Duration abort_at =
      start +
      (policy == InFlightPolicy::kAbort ? absl::ZeroDuration() : drain_timeout);
  while (true) {
    const absl::Status status = attempt();
    if (ReasonOf(status) != "ADAPTER_IN_USE" ||
        policy == InFlightPolicy::kFailIfBusy) {
      return status;
    }
    if (limits.cancelled()) {
      return absl::CancelledError("the caller went away");
    }
    const absl::Duration now = clock_.Now();
    if (now - start >= limits.timeout) {
      return WithReason(absl::DeadlineExceededError(status.message()),
                        "ADAPTER_IN_USE");
    }
    if (now >= abort_at) engine_.AbortAdapter(tenant, name);
    if (now >= abort_at + kAbortTimeout) return status;
    store_.WaitForEvents(store_.last_event(), kLookPeriod).IgnoreError();
  }
}

absl::Status AdapterService::Delete(const std::string& tenant,
                                    const std::string& name,
                                    std::optional<uint64_t> etag,
                                    InFlightPolicy policy,
                                    std::optional<absl::Duration> drain_timeout,
                                    const CallLimits& limits) {
  RETURN_IF_ERROR(CheckName(tenant, name, "name"));
  const absl::Status begun =
      store_.BeginDelete(tenant, name, {etag, limits.actor});
  if (!begun.ok()) return About(begun, "adapter", tenant, name);
  const absl::Status status = WaitUntilUnused(
      tenant, name, policy, drain_timeout.value_or(drain_timeout_), limits,
      [&] { return store_.FinishDelete(tenant, name); });
  if (status.ok()) return status;
  store_.CancelDelete(tenant, name);
  return About(status, "adapter", tenant, name);
}

absl::StatusOr<AdapterInfo> AdapterService::Load(const std::string& tenant,
                                                 const std::string& name,
                                                 Tier tier,
                                                 std::optional<bool> pinned,
                                                 const CallLimits& limits) {
  RETURN_IF_ERROR(CheckName(tenant, name, "name"));
  const absl::Duration deadline =
      clock_.Now() + std::min(limits.timeout, kMaxLoadTime);
  while (true) {
    const absl::Duration left = deadline - clock_.Now();
    const absl::Status status =
        store_.LoadTo(tenant, name, tier, pinned,
                      std::clamp(left, absl::ZeroDuration(), kLoadPiece));
    if (status.ok()) return Get(tenant, name);
    if (!absl::IsDeadlineExceeded(status) || left <= kLoadPiece) {
      return About(status, "adapter", tenant, name);
    }
    if (limits.cancelled()) {
      return absl::CancelledError("the caller went away");
    }
  }
}

absl::StatusOr<AdapterService::Unloaded> AdapterService::Unload(
    const std::string& tenant, const std::string& name, Tier tier,
    InFlightPolicy policy, std::optional<absl::Duration> drain_timeout,
    const CallLimits& limits) {
  RETURN_IF_ERROR(CheckName(tenant, name, "name"));
  if (tier == Tier::kDevice) {
    return FieldError("tier", "TIER_DEVICE is the highest: nothing to unload");
  }
  Unloaded result;
  const auto attempt = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const AdapterInfo info, store_.Get(tenant, name));
    if (info.pinned) {
      return WithReason(absl::FailedPreconditionError(absl::StrCat(
                            "adapter ", Quote(name), " is pinned: unpin it")),
                        "ADAPTER_PINNED");
    }
    ASSIGN_OR_RETURN(const int64_t bytes, store_.UnloadTo(tenant, name, tier));
    result.freed_bytes += bytes;
    return absl::OkStatus();
  };
  const absl::Status status =
      WaitUntilUnused(tenant, name, policy,
                      drain_timeout.value_or(drain_timeout_), limits, attempt);
  if (!status.ok()) return About(status, "adapter", tenant, name);
  ASSIGN_OR_RETURN(result.info, Get(tenant, name));
  return result;
}

// ---- aliases ----------------------------------------------------------------

absl::StatusOr<AdapterRef> AdapterService::ParseTarget(
    const std::string& tenant, const std::string& text,
    const std::string& field) const {
  absl::StatusOr<AdapterRef> ref = AdapterRef::Parse(text);
  if (!ref.ok()) {
    return WithField(WithDefaultReason(ref.status(), "INVALID_NAME"), field);
  }
  if (ref->tenant != tenant) {
    return FieldError(field,
                      absl::StrCat(Quote(text), " is of another tenant"));
  }
  return ref;
}

absl::StatusOr<AliasView> AdapterService::ToView(
    const std::string& tenant, const std::string& alias,
    absl::StatusOr<AliasInfo> info) const {
  if (info.ok()) return AliasView{*info, monitor_.CountsOf(*info)};
  // What is missing may be a target.
  const bool is_adapter = ReasonOf(info.status()) == "ADAPTER_NOT_FOUND";
  const absl::Status status =
      About(info.status(), is_adapter ? "adapter" : "alias", tenant, alias);
  return is_adapter ? WithField(status, "version") : status;
}

absl::StatusOr<AliasView> AdapterService::SetAlias(const AliasInput& input) {
  RETURN_IF_ERROR(CheckName(input.tenant, input.alias, "alias.name"));
  if (input.alias == model_.id) {
    return About(absl::AlreadyExistsError(absl::StrCat(
                     "name ", Quote(input.alias), " is the base model's")),
                 "alias", input.tenant, input.alias);
  }
  AdapterStore::AliasRequest request;
  request.tenant = input.tenant;
  request.alias = input.alias;
  request.rule = input.rule;
  request.change = input.change;
  const bool is_split = input.targets.size() > 1;
  for (size_t i = 0; i < input.targets.size(); ++i) {
    const AliasInput::Target& target = input.targets[i];
    ASSIGN_OR_RETURN(AdapterRef ref, ParseTarget(input.tenant, target.version,
                                                 absl::StrCat("alias.targets[",
                                                              i, "].version")));
    request.targets.push_back(
        {std::move(ref), is_split ? target.weight : uint32_t{1}});
  }
  if (!input.shadow.empty()) {
    ASSIGN_OR_RETURN(AdapterRef ref, ParseTarget(input.tenant, input.shadow,
                                                 "alias.shadow.version"));
    request.shadow = {std::move(ref), input.shadow_share};
  }
  absl::StatusOr<AliasInfo> info = store_.PutAlias(request);
  // What is missing is a target, not the alias.
  if (absl::IsNotFound(info.status())) {
    return WithField(About(info.status(), "adapter", input.tenant,
                           input.targets.front().version),
                     "alias.targets");
  }
  return ToView(input.tenant, input.alias, std::move(info));
}

absl::StatusOr<AliasView> AdapterService::PromoteAlias(
    const std::string& tenant, const std::string& alias,
    const std::string& target, const Change& change) {
  RETURN_IF_ERROR(CheckName(tenant, alias, "name"));
  std::optional<AdapterRef> ref;
  if (!target.empty()) {
    ASSIGN_OR_RETURN(ref, ParseTarget(tenant, target, "version"));
  }
  return ToView(tenant, alias, store_.PromoteAlias(tenant, alias, ref, change));
}

absl::StatusOr<AliasView> AdapterService::RollBackAlias(
    const std::string& tenant, const std::string& alias, const Change& change) {
  RETURN_IF_ERROR(CheckName(tenant, alias, "name"));
  return ToView(tenant, alias, store_.RollBackAlias(tenant, alias, change));
}

absl::StatusOr<AliasView> AdapterService::GetAlias(const std::string& tenant,
                                                   const std::string& alias) {
  RETURN_IF_ERROR(CheckName(tenant, alias, "name"));
  return ToView(tenant, alias, store_.GetAlias(tenant, alias));
}

absl::StatusOr<std::vector<AliasView>> AdapterService::ListAliases(
    const std::string& tenant) {
  RETURN_IF_ERROR(CheckTenant(tenant));
  std::vector<AliasView> views;
  for (const AliasInfo& info : store_.ListAliases(tenant)) {
    views.push_back({info, monitor_.CountsOf(info)});
  }
  std::sort(views.begin(), views.end(),
            [](const AliasView& a, const AliasView& b) {
              return a.info.name < b.info.name;
            });
  return views;
}

absl::Status AdapterService::DeleteAlias(const std::string& tenant,
                                         const std::string& alias,
                                         const Change& change) {
  RETURN_IF_ERROR(CheckName(tenant, alias, "name"));
  return About(store_.DeleteAlias(tenant, alias, change), "alias", tenant,
               alias);
}

absl::StatusOr<AuditPage> AdapterService::ReadAudit(const AuditQuery& query) {
  RETURN_IF_ERROR(CheckTenant(query.tenant));
  if (!query.name.empty()) {
    RETURN_IF_ERROR(CheckName(query.tenant, query.name, "resource"));
  }
  AuditQuery one_more = query;
  ++one_more.limit;
  AuditPage page;
  ASSIGN_OR_RETURN(page.entries, store_.ReadAudit(one_more));
  page.has_more = page.entries.size() > static_cast<size_t>(query.limit);
  if (page.has_more) page.entries.pop_back();
  return page;
}

// ---- watching ---------------------------------------------------------------

absl::Status AdapterService::LoadError(const AdapterInfo& adapter) {
  if (adapter.state != AdapterState::kFailed) return absl::OkStatus();
  return store_.LoadError(adapter.newest.key);
}

absl::StatusOr<std::vector<AdapterEvent>> AdapterService::WaitForEvents(
    uint64_t after, absl::Duration timeout) {
  return store_.WaitForEvents(after, timeout);
}

uint64_t AdapterService::last_event() { return store_.last_event(); }

}  // namespace lorikeet
