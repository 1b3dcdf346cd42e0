#include "server/frontend/adapter_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"
#include "server/frontend/adapter_error.h"
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

absl::Status CheckDisplayName(const std::string& name) {
  if (name.size() > kMaxDisplayNameBytes) {
    return RangeError("adapter.display_name length", absl::StrCat(name.size()),
                      absl::StrCat("[0, ", kMaxDisplayNameBytes, "] bytes"));
  }
  return absl::OkStatus();
}

absl::Status CheckMergePolicy(const std::string& policy) {
  if (policy.empty() || ParseMergePolicy(policy).has_value()) {
    return absl::OkStatus();
  }
  return FieldError(
      "adapter.merge_policy",
      absl::StrCat(Quote(policy),
                   " is none of never, always, auto and \"\" (the server's)"));
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
  RETURN_IF_ERROR(CheckMergePolicy(input.merge_policy.value_or("")));
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
  if (info.ok() && input.merge_policy.has_value()) {
    info = store_.SetMergePolicy(input.tenant, input.name,
                                 ParseMergePolicy(*input.merge_policy));
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

absl::StatusOr<AdapterStore::AdapterPage> AdapterService::List(
    const std::string& tenant, const std::string& after, int64_t limit) {
  RETURN_IF_ERROR(CheckTenant(tenant));
  return store_.ListPage(tenant, after, limit);
}

absl::StatusOr<std::vector<AdapterInfo>> AdapterService::ListAll(
    const std::string& tenant) {
  RETURN_IF_ERROR(CheckTenant(tenant));
  return store_.ListAll(tenant);
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
  const absl::Status status =
      WaitUntilUnused(tenant, name, policy,
                      drain_timeout.value_or(drain_timeout_), limits, [&] {
                        engine_.DropMerged(tenant, name);
                        return store_.FinishDelete(tenant, name);
                      });
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
    result.freed_bytes += engine_.DropMerged(tenant, name);
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
