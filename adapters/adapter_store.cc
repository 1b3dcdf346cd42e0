#include "adapters/adapter_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/adapter_metadata.h"
#include "adapters/adapter_status.h"
#include "adapters/adapter_store_impl.h"
#include "base/reason.h"
#include "base/status.h"

namespace lorikeet {

absl::Status AdapterStoreImpl::Init(Ops& ops) {
  if (options_.host_bytes <= 0 || options_.device_bytes <= 0 ||
      options_.max_device_adapters <= 0 || options_.loader_threads <= 0) {
    return absl::InvalidArgumentError(
        "budgets, slots and loader threads of the adapter store must be > 0");
  }
  ASSIGN_OR_RETURN(state_dir_, StateDir::Open(fs_, options_.state_dir));
  const std::string& dir = state_dir_->path();
  ASSIGN_OR_RETURN(registry_, Registry::Open(JoinPath(dir, "registry.db")));
  ASSIGN_OR_RETURN(content_, ContentStore::Open(fs_, dir));
  ASSIGN_OR_RETURN(Registry::Contents contents, registry_->ReadAll());

  MutexLock lock(&mu_);
  RETURN_IF_ERROR(catalogue_.Load(std::move(contents)));
  RETURN_IF_ERROR(content_->Sweep(catalogue_.Digests()));

  AdapterLoader::Options loader;
  loader.host_bytes = options_.host_bytes;
  loader.device_bytes = options_.device_bytes;
  loader.device_slots = options_.max_device_adapters;
  loader.threads = options_.loader_threads;
  loader.base = base_.weights;
  loader.read = [this](const AdapterKey& key) { return ReadVersion(key); };
  loader.moved = [this](const std::vector<AdapterKey>& keys) { OnMoved(keys); };
  loader_ = std::make_unique<AdapterLoader>(ops, clock_, std::move(loader));
  for (const auto& [key, entry] : catalogue_.entries) {
    const Version& newest = entry.newest();
    if (!entry.row.pinned || !IsCompatible(newest.info)) continue;
    loader_->SetPinned(newest.info.key, true);
    loader_->Prefetch(newest.info.key, newest.users);
  }
  return absl::OkStatus();
}

AdapterInfo AdapterStoreImpl::MakeInfo(const Entry& entry) {
  AdapterInfo info;
  info.tenant = entry.row.tenant;
  info.name = entry.row.name;
  info.uid = entry.row.uid;
  info.display_name = entry.row.display_name;
  info.source_path = entry.row.source_path;
  info.labels = entry.row.labels;
  info.pinned = entry.row.pinned;
  info.merge_policy = entry.row.merge_policy;
  info.etag = entry.row.etag;
  info.create_time = entry.row.create_time;
  info.update_time = entry.row.update_time;
  info.last_used = entry.last_used;
  info.newest = entry.newest().info;
  info.active_requests = entry.users();
  info.tier = loader_->TierOf(info.newest.key);
  if (entry.is_draining) {
    info.state = AdapterState::kDraining;
  } else if (!IsCompatible(info.newest)) {
    info.state = AdapterState::kIncompatible;
  } else if (!loader_->LoadError(info.newest.key).ok()) {
    info.state = AdapterState::kFailed;
  }
  return info;
}

void AdapterStoreImpl::OnMoved(const std::vector<AdapterKey>& keys) {
  MutexLock lock(&mu_);
  for (const AdapterKey& key : keys) {
    const auto it = catalogue_.entries.find(NameKey(key.tenant, key.name));
    if (it == catalogue_.entries.end() || it->second.newest().info.key != key)
      continue;
    LogEvent(AdapterEvent::Kind::kModified, it->second);
  }
}

absl::Status AdapterStoreImpl::CheckCompatible(
    const AdapterVersionInfo& version) const {
  if (IsCompatible(version)) return absl::OkStatus();
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat(
          "adapter ", version.key.ToString(), " was registered for base ",
          version.base_fingerprint.ToShortHex(), ", this server has ",
          base_.fingerprint.ToShortHex(), ": register it again")),
      "ADAPTER_INCOMPATIBLE");
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::Get(const std::string& tenant,
                                                  const std::string& name) {
  MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(const Entry* entry, catalogue_.Find(tenant, name));
  return MakeInfo(*entry);
}

AdapterStore::AdapterPage AdapterStoreImpl::ListPage(const std::string& tenant,
                                                     const std::string& after,
                                                     int64_t limit) {
  MutexLock lock(&mu_);
  AdapterPage page;
  for (auto it = catalogue_.entries.lower_bound(NameKey(tenant, ""));
       it != catalogue_.entries.end() && it->first.first == tenant; ++it) {
    ++page.total;
    if (it->first.second <= after) continue;
    if (static_cast<int64_t>(page.adapters.size()) == limit) continue;
    page.adapters.push_back(MakeInfo(it->second));
  }
  return page;
}

absl::StatusOr<std::vector<AdapterVersionInfo>> AdapterStoreImpl::ListVersions(
    const std::string& tenant, const std::string& name) {
  MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(const Entry* entry, catalogue_.Find(tenant, name));
  std::vector<AdapterVersionInfo> result;
  for (auto it = entry->versions.rbegin(); it != entry->versions.rend(); ++it) {
    result.push_back((*it)->info);
  }
  return result;
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::ChangeRow(
    const std::string& tenant, const std::string& name,
    std::optional<uint64_t> etag,
    const std::function<void(Registry::Adapter*)>& change) {
  MutexLock commit(&commit_mu_);
  Registry::Adapter row;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Entry* entry, catalogue_.Find(tenant, name));
    RETURN_IF_ERROR(CheckEtag(etag, entry->row.etag));
    row = entry->row;
  }
  change(&row);
  row.update_time = Now();
  ASSIGN_OR_RETURN(row.etag, registry_->UpdateAdapter(row));
  MutexLock lock(&mu_);
  // Only holders of commit_mu_ remove entries.
  ASSIGN_OR_RETURN(Entry* const entry, catalogue_.Find(tenant, name));
  entry->row = std::move(row);
  LogEvent(AdapterEvent::Kind::kModified, *entry);
  return MakeInfo(*entry);
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::UpdateMetadata(
    const std::string& tenant, const std::string& name,
    std::optional<std::string> display_name, std::optional<Labels> labels,
    std::optional<uint64_t> etag) {
  RETURN_IF_ERROR(
      CheckMetadata(display_name.value_or(""), labels.value_or(Labels())));
  return ChangeRow(tenant, name, etag, [&](Registry::Adapter* row) {
    if (display_name.has_value()) row->display_name = *display_name;
    if (labels.has_value()) row->labels = *labels;
  });
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::SetMergePolicy(
    const std::string& tenant, const std::string& name,
    std::optional<MergePolicy> policy) {
  return ChangeRow(tenant, name, std::nullopt,
                   [&](Registry::Adapter* row) { row->merge_policy = policy; });
}

AuditEntry AdapterStoreImpl::MakeAudit(const std::string& actor,
                                       const std::string& action,
                                       const std::string& tenant,
                                       const std::string& name) const {
  AuditEntry entry;
  entry.time = Now();
  entry.actor = actor;
  entry.action = action;
  entry.tenant = tenant;
  entry.name = name;
  return entry;
}

namespace {

absl::StatusOr<std::unique_ptr<AdapterStore>> OpenStore(
    FileSystem& fs, const Clock& clock, const AdapterStore::Base& base,
    Ops& ops, const AdapterStoreOptions& options) {
  auto store = std::make_unique<AdapterStoreImpl>(fs, clock, base, options);
  RETURN_IF_ERROR(store->Init(ops));
  return std::unique_ptr<AdapterStore>(std::move(store));
}

}  // namespace

absl::StatusOr<AliasInfo> AdapterStore::SetAlias(const std::string& tenant,
                                                 const std::string& alias,
                                                 const AdapterRef& target,
                                                 std::optional<uint64_t> etag) {
  AliasRequest request;
  request.tenant = tenant;
  request.alias = alias;
  request.targets = {{target, 1}};
  request.change.etag = etag;
  return PutAlias(request);
}

absl::StatusOr<VersionRef> AdapterStore::Resolve(const AdapterRef& ref) {
  ASSIGN_OR_RETURN(const Route route, FindRoute(ref, ""));
  return route.version;
}

absl::StatusOr<std::unique_ptr<AdapterStore>> AdapterStore::Open(
    FileSystem& fs, const Clock& clock, const Model& model, Ops& ops,
    const AdapterStoreOptions& options) {
  const Base base{model.config(), model.fingerprint(), BaseWeights(model, ops)};
  return OpenStore(fs, clock, base, ops, options);
}

absl::StatusOr<std::unique_ptr<AdapterStore>> AdapterStore::Open(
    FileSystem& fs, const Clock& clock, const Base& base, Ops& ops,
    const AdapterStoreOptions& options) {
  return OpenStore(fs, clock, base, ops, options);
}

}  // namespace lorikeet
