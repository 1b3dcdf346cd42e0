// The catalogue in memory mirrors the registry, so that Resolve never touches
// the disk. A change is: under commit_mu_ write content and registry, then
// under mu_ change the catalogue and log an event. Locks are taken in the order
// commit_mu_, mu_, those of the loader; mu_ is never held over I/O.

#include "adapters/adapter_store.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "adapters/adapter_loader.h"
#include "adapters/content_store.h"
#include "adapters/event_log.h"
#include "adapters/registry.h"
#include "adapters/state_dir.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/random.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

constexpr size_t kEventsKept = 1000;
constexpr size_t kMaxDisplayNameBytes = 63;
constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelBytes = 63;

using Labels = std::vector<std::pair<std::string, std::string>>;

// Tenant and name; orders listings.
using NameKey = std::pair<std::string, std::string>;

// One version in memory. `info` never changes.
struct Version {
  AdapterVersionInfo info;
  // Requests that hold it; the device pool looks at it too.
  std::shared_ptr<std::atomic<int64_t>> users =
      std::make_shared<std::atomic<int64_t>>(0);
};

// Counts one request for as long as it lives.
struct Hold {
  explicit Hold(std::shared_ptr<const Version> v) : version(std::move(v)) {
    version->users->fetch_add(1);
  }
  ~Hold() { version->users->fetch_sub(1); }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;
  const std::shared_ptr<const Version> version;
};

struct Entry {
  Registry::Adapter row;
  std::vector<std::shared_ptr<const Version>> versions;  // ascending, not empty
  bool is_draining = false;
  std::optional<absl::Time> last_used;

  const Version& newest() const { return *versions.back(); }
  int64_t users() const {
    int64_t sum = 0;
    for (const auto& version : versions) sum += version->users->load();
    return sum;
  }
};

std::string Describe(const std::string& tenant, const std::string& name) {
  return absl::StrCat(Quote(name), " of tenant ", Quote(tenant));
}

absl::Status AdapterNotFound(const std::string& tenant,
                             const std::string& name) {
  return WithReason(absl::NotFoundError(absl::StrCat(
                        "adapter ", Describe(tenant, name), " does not exist")),
                    "ADAPTER_NOT_FOUND");
}

absl::Status AliasNotFound(const std::string& tenant, const std::string& name) {
  return WithReason(absl::NotFoundError(absl::StrCat(
                        "alias ", Describe(tenant, name), " does not exist")),
                    "ALIAS_NOT_FOUND");
}

absl::Status NameTaken(const std::string& tenant, const std::string& name,
                       absl::string_view what) {
  return WithReason(
      absl::AlreadyExistsError(absl::StrCat("name ", Describe(tenant, name),
                                            " belongs to an ", what)),
      "ADAPTER_EXISTS");
}

absl::Status CheckEtag(std::optional<uint64_t> expected, uint64_t actual) {
  if (!expected.has_value() || *expected == actual) return absl::OkStatus();
  return WithReason(
      absl::AbortedError(absl::StrCat("etag is ", actual, ", the caller has ",
                                      *expected, ": it changed meanwhile")),
      "ETAG_MISMATCH");
}

absl::Status InUse(const std::string& tenant, const std::string& name,
                   int64_t users) {
  return WithReason(absl::FailedPreconditionError(absl::StrCat(
                        "adapter ", Describe(tenant, name), " is in use by ",
                        users, users == 1 ? " request" : " requests")),
                    "ADAPTER_IN_USE");
}

absl::Status Draining(const std::string& tenant, const std::string& name) {
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat(
          "adapter ", Describe(tenant, name), " is being deleted")),
      "ADAPTER_DRAINING");
}

absl::Status CheckMetadata(const std::string& display_name,
                           const Labels& labels) {
  const auto invalid = [](absl::string_view message) {
    return WithReason(absl::InvalidArgumentError(message), "INVALID_METADATA");
  };
  if (display_name.size() > kMaxDisplayNameBytes ||
      !IsValidUtf8(display_name)) {
    return invalid(absl::StrCat("display_name ", Quote(display_name, 80),
                                " is not UTF-8 of at most ",
                                kMaxDisplayNameBytes, " bytes"));
  }
  if (labels.size() > kMaxLabels) {
    return invalid(
        absl::StrCat(labels.size(), " labels, the limit is ", kMaxLabels));
  }
  absl::flat_hash_set<absl::string_view> keys;
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() > kMaxLabelBytes ||
        value.size() > kMaxLabelBytes || !IsValidUtf8(key) ||
        !IsValidUtf8(value)) {
      return invalid(absl::StrCat("label ", Quote(key, 80),
                                  " is not UTF-8 of at most ", kMaxLabelBytes,
                                  " bytes"));
    }
    if (!keys.insert(key).second) {
      return invalid(absl::StrCat("label ", Quote(key), " stands twice"));
    }
  }
  return absl::OkStatus();
}

AdapterVersionInfo MakeVersionInfo(const AdapterWeights& weights,
                                   AdapterKey key, const Digest& base,
                                   uint64_t size_bytes, absl::Time now) {
  AdapterVersionInfo info;
  info.key = std::move(key);
  info.base_fingerprint = base;
  info.create_time = now;
  info.max_rank = weights.max_rank;
  info.alpha = weights.alpha;
  info.use_rslora = weights.use_rslora;
  info.warnings = weights.warnings;
  info.features = weights.features;
  info.size_bytes = static_cast<int64_t>(size_bytes);
  bool used[kNumProjections] = {};
  for (const LoraModule& module : weights.modules) {
    if (module.id.is_of_layer()) {
      used[static_cast<size_t>(module.id.projection)] = true;
    } else {
      info.target_modules.push_back(
          module.id == LinearId::LmHead() ? "lm_head" : "embed_tokens");
    }
    info.modules.push_back({module.name, module.rank, module.scaling});
  }
  for (int i = 0; i < kNumProjections; ++i) {
    if (used[i]) info.target_modules.push_back(kProjectionNames[i]);
  }
  return info;
}

bool IsBelow(absl::string_view path, absl::string_view dir) {
  if (dir == "/") return true;
  return path == dir ||
         (absl::StartsWith(path, dir) && path[dir.size()] == '/');
}

// The time of the clock as the registry keeps it.
absl::Time ToMicros(absl::Time t) {
  return absl::FromUnixMicros(absl::ToUnixMicros(t));
}

class AdapterStoreImpl final : public AdapterStore {
 public:
  AdapterStoreImpl(FileSystem& fs, const Clock& clock, const Base& base,
                   const AdapterStoreOptions& options)
      : fs_(fs),
        clock_(clock),
        base_(base),
        options_(options),
        // Microseconds grow faster than events do.
        events_(static_cast<uint64_t>(
                    std::max<int64_t>(0, absl::ToUnixMicros(clock.WallNow()))),
                kEventsKept) {}

  absl::Status Init(Ops& ops);

  absl::StatusOr<AdapterInfo> Register(const RegisterRequest& r) override;
  absl::StatusOr<std::string> NewUploadDir() override {
    return content_->NewUploadDir();
  }
  void RemoveUpload(const std::string& dir) override {
    content_->RemoveUpload(dir);
  }
  absl::StatusOr<AdapterInfo> Get(const std::string& tenant,
                                  const std::string& name) override;
  std::vector<AdapterInfo> List(const std::string& tenant) override;
  absl::StatusOr<std::vector<AdapterVersionInfo>> ListVersions(
      const std::string& tenant, const std::string& name) override;
  absl::StatusOr<AdapterInfo> UpdateMetadata(
      const std::string& tenant, const std::string& name,
      std::optional<std::string> display_name, std::optional<Labels> labels,
      std::optional<uint64_t> etag) override;
  absl::Status BeginDelete(const std::string& tenant, const std::string& name,
                           std::optional<uint64_t> etag) override;
  void CancelDelete(const std::string& tenant,
                    const std::string& name) override;
  absl::Status FinishDelete(const std::string& tenant,
                            const std::string& name) override;

  absl::StatusOr<AliasInfo> SetAlias(const std::string& tenant,
                                     const std::string& alias,
                                     const AdapterRef& target,
                                     std::optional<uint64_t> etag) override;
  absl::StatusOr<AliasInfo> GetAlias(const std::string& tenant,
                                     const std::string& alias) override;
  std::vector<AliasInfo> ListAliases(const std::string& tenant) override;
  absl::Status DeleteAlias(const std::string& tenant, const std::string& alias,
                           std::optional<uint64_t> etag) override;

  absl::StatusOr<VersionRef> Resolve(const AdapterRef& ref) override;
  void Prefetch(const AdapterKey& key) override;
  DeviceLease TryLease(const AdapterKey& key) override {
    return loader_->TryLease(key);
  }
  absl::Status LoadError(const AdapterKey& key) override {
    return loader_->LoadError(key);
  }
  void SetLoadedCallback(std::function<void()> callback) override {
    loader_->SetLoadedCallback(std::move(callback));
  }

  absl::Status LoadTo(const std::string& tenant, const std::string& name,
                      Tier tier, std::optional<bool> pinned,
                      absl::Duration timeout) override;
  absl::StatusOr<int64_t> UnloadTo(const std::string& tenant,
                                   const std::string& name, Tier tier) override;
  absl::StatusOr<AdapterInfo> SetPinned(const std::string& tenant,
                                        const std::string& name,
                                        bool pinned) override;
  Residency GetResidency() override { return loader_->GetResidency(); }

  absl::StatusOr<std::vector<AdapterEvent>> WaitForEvents(
      uint64_t after, absl::Duration timeout) override {
    return events_.Wait(after, timeout);
  }
  uint64_t last_event() override { return events_.last(); }

 private:
  using EntryMap = std::map<NameKey, Entry>;

  // ---- catalogue -----------------------------------------------------------
  absl::StatusOr<Entry*> Find(const std::string& tenant,
                              const std::string& name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The version that `ref` means; its name must be an adapter's.
  absl::StatusOr<std::shared_ptr<const Version>> FindVersion(
      const Entry& entry, const AdapterRef& ref)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  AdapterInfo MakeInfo(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<AliasInfo> MakeAliasInfo(const Registry::Alias& alias)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LogEvent(AdapterEvent::Kind kind, const Entry& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    events_.Add(kind, MakeInfo(entry));
  }
  void OnMoved(const std::vector<AdapterKey>& keys);
  bool IsCompatible(const AdapterVersionInfo& version) const {
    return version.base_fingerprint == base_.fingerprint;
  }
  absl::Status CheckCompatible(const AdapterVersionInfo& version) const;
  const BaseWeights* base_weights() const {
    return base_.weights.has_value() ? &*base_.weights : nullptr;
  }

  // ---- registration --------------------------------------------------------
  struct Source {
    std::string config_path, model_path;
  };
  absl::StatusOr<Source> FindSource(const RegisterRequest& r);
  absl::StatusOr<std::string> AllowedPath(const std::string& path,
                                          const RegisterRequest& r);
  // Whether a registration may go on, as far as names and etags go.
  absl::Status CheckRegister(const RegisterRequest& r)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Entry MakeEntry(const RegisterRequest& r, const AdapterWeights& weights,
                  uint64_t size_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<AdapterInfo> RegisterFrom(const RegisterRequest& r);
  absl::StatusOr<AdapterInfo> Commit(const RegisterRequest& r,
                                     const ContentStore::Staged& staged,
                                     const AdapterWeights& weights)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(commit_mu_);
  bool IsKnownDigest(const Digest& digest);
  void RemoveContent(const Digest& digest)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(commit_mu_);
  absl::StatusOr<HostCache::Weights> ReadVersion(const AdapterKey& key);
  // Changes a row in the registry and then in the catalogue.
  absl::StatusOr<AdapterInfo> ChangeRow(
      const std::string& tenant, const std::string& name,
      std::optional<uint64_t> etag,
      const std::function<void(Registry::Adapter*)>& change);

  FileSystem& fs_;
  const Clock& clock_;
  const Base base_;
  const AdapterStoreOptions options_;
  std::unique_ptr<StateDir> state_dir_;
  std::unique_ptr<ContentStore> content_;
  std::unique_ptr<Registry> registry_;
  EventLog events_;

  // Serializes changes of disk and catalogue. Held over I/O; never taken by
  // calls that must not block.
  Mutex commit_mu_;
  Mutex mu_;
  EntryMap entries_ ABSL_GUARDED_BY(mu_);
  std::map<NameKey, Registry::Alias> aliases_ ABSL_GUARDED_BY(mu_);
  // Last: its threads use all of the above.
  std::unique_ptr<AdapterLoader> loader_;
};

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

  absl::flat_hash_set<Digest> known;
  MutexLock lock(&mu_);
  for (Registry::Adapter& row : contents.adapters) {
    NameKey key(row.tenant, row.name);
    entries_[std::move(key)].row = std::move(row);
  }
  for (AdapterVersionInfo& info : contents.versions) {
    known.insert(info.key.digest);
    Entry& entry = entries_[NameKey(info.key.tenant, info.key.name)];
    auto version = std::make_shared<Version>();
    version->info = std::move(info);
    entry.versions.push_back(std::move(version));
  }
  for (Registry::Alias& alias : contents.aliases) {
    aliases_[NameKey(alias.tenant, alias.name)] = std::move(alias);
  }
  for (const auto& [key, entry] : entries_) {
    if (!entry.versions.empty()) continue;
    return WithReason(absl::DataLossError(absl::StrCat(
                          "registry: adapter ", Describe(key.first, key.second),
                          " has no version")),
                      "REGISTRY_DAMAGED");
  }
  RETURN_IF_ERROR(content_->Sweep(known));

  AdapterLoader::Options loader;
  loader.host_bytes = options_.host_bytes;
  loader.device_bytes = options_.device_bytes;
  loader.device_slots = options_.max_device_adapters;
  loader.threads = options_.loader_threads;
  loader.base = base_.weights;
  loader.read = [this](const AdapterKey& key) { return ReadVersion(key); };
  loader.moved = [this](const std::vector<AdapterKey>& keys) { OnMoved(keys); };
  loader_ = std::make_unique<AdapterLoader>(ops, clock_, std::move(loader));
  for (const auto& [key, entry] : entries_) {
    const Version& newest = entry.newest();
    if (!entry.row.pinned || !IsCompatible(newest.info)) continue;
    loader_->SetPinned(newest.info.key, true);
    loader_->Prefetch(newest.info.key, newest.users);
  }
  return absl::OkStatus();
}

// ---- catalogue --------------------------------------------------------------

absl::StatusOr<Entry*> AdapterStoreImpl::Find(const std::string& tenant,
                                              const std::string& name) {
  const auto it = entries_.find(NameKey(tenant, name));
  if (it == entries_.end()) return AdapterNotFound(tenant, name);
  return &it->second;
}

absl::StatusOr<std::shared_ptr<const Version>> AdapterStoreImpl::FindVersion(
    const Entry& entry, const AdapterRef& ref) {
  if (!ref.version.has_value() && !ref.digest.has_value()) {
    return entry.versions.back();
  }
  std::shared_ptr<const Version> found;
  // The newest of those with equal content: the others were verified against
  // another base, or came back after a change.
  for (const auto& version : entry.versions) {
    const AdapterKey& key = version->info.key;
    const bool matches =
        ref.version.has_value()
            ? key.version == *ref.version
            : absl::StartsWith(key.digest.ToHex(), *ref.digest);
    if (!matches) continue;
    if (found != nullptr && found->info.key.digest != key.digest) {
      return WithReason(absl::InvalidArgumentError(absl::StrCat(
                            "digest ", Quote(*ref.digest), " of adapter ",
                            Describe(ref.tenant, ref.name),
                            " is ambiguous: give more digits")),
                        "INVALID_NAME");
    }
    found = version;
  }
  if (found != nullptr) return found;
  const std::string wanted = ref.version.has_value()
                                 ? absl::StrCat(*ref.version)
                                 : absl::StrCat("sha256:", *ref.digest);
  return WithReason(absl::NotFoundError(
                        absl::StrCat("adapter ", Describe(ref.tenant, ref.name),
                                     " has no version ", wanted)),
                    "ADAPTER_NOT_FOUND");
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
    const auto it = entries_.find(NameKey(key.tenant, key.name));
    if (it == entries_.end() || it->second.newest().info.key != key) continue;
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
  ASSIGN_OR_RETURN(const Entry* entry, Find(tenant, name));
  return MakeInfo(*entry);
}

std::vector<AdapterInfo> AdapterStoreImpl::List(const std::string& tenant) {
  MutexLock lock(&mu_);
  std::vector<AdapterInfo> result;
  for (auto it = entries_.lower_bound(NameKey(tenant, ""));
       it != entries_.end() && it->first.first == tenant; ++it) {
    result.push_back(MakeInfo(it->second));
  }
  return result;
}

absl::StatusOr<std::vector<AdapterVersionInfo>> AdapterStoreImpl::ListVersions(
    const std::string& tenant, const std::string& name) {
  MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(const Entry* entry, Find(tenant, name));
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
    ASSIGN_OR_RETURN(const Entry* entry, Find(tenant, name));
    RETURN_IF_ERROR(CheckEtag(etag, entry->row.etag));
    row = entry->row;
  }
  change(&row);
  row.update_time = ToMicros(clock_.WallNow());
  ASSIGN_OR_RETURN(row.etag, registry_->UpdateAdapter(row));
  MutexLock lock(&mu_);
  // Only holders of commit_mu_ remove entries.
  ASSIGN_OR_RETURN(Entry* const entry, Find(tenant, name));
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

// ---- registration -----------------------------------------------------------

absl::StatusOr<std::string> AdapterStoreImpl::AllowedPath(
    const std::string& path, const RegisterRequest& r) {
  const absl::Status denied = WithReason(
      absl::PermissionDeniedError(absl::StrCat(
          "path ", Quote(r.path), " is not below an allowed directory")),
      "PATH_NOT_ALLOWED");
  absl::StatusOr<std::string> canonical = fs_.Canonical(path);
  if (!canonical.ok()) {
    // What does not exist elsewhere is nobody's business.
    const bool visible =
        r.trusted_path ||
        (!absl::StrContains(path, "..") &&
         std::any_of(
             options_.roots.begin(), options_.roots.end(),
             [&](const std::string& root) { return IsBelow(path, root); }));
    if (!visible) return denied;
    return WithReason(absl::NotFoundError(absl::StrCat(
                          "directory ", Quote(r.path), " does not exist")),
                      "ADAPTER_INVALID");
  }
  if (r.trusted_path) return canonical;
  for (const std::string& root : options_.roots) {
    const absl::StatusOr<std::string> allowed = fs_.Canonical(root);
    if (allowed.ok() && IsBelow(*canonical, *allowed)) return canonical;
  }
  return denied;
}

absl::StatusOr<AdapterStoreImpl::Source> AdapterStoreImpl::FindSource(
    const RegisterRequest& r) {
  std::string dir = r.upload_dir;
  if (dir.empty()) {
    if (r.path.empty()) {
      return WithReason(absl::InvalidArgumentError("path is empty"),
                        "ADAPTER_INVALID");
    }
    ASSIGN_OR_RETURN(dir, AllowedPath(r.path, r));
  } else if (!content_->IsUpload(dir)) {
    return WithReason(absl::InvalidArgumentError("upload does not exist"),
                      "UPLOAD_NOT_FOUND");
  }
  Source source{JoinPath(dir, kAdapterConfigFile),
                JoinPath(dir, kAdapterModelFile)};
  for (std::string* file : {&source.config_path, &source.model_path}) {
    // Its error says what is missing, and of a pickle that is there instead.
    if (!fs_.FileExists(*file)) {
      RETURN_IF_ERROR(DigestOfAdapter(fs_, dir, options_.limits).status());
    }
    // A link in an allowed directory may lead out of it.
    if (r.upload_dir.empty()) {
      ASSIGN_OR_RETURN(*file, AllowedPath(*file, r));
    }
  }
  return source;
}

absl::Status AdapterStoreImpl::CheckRegister(const RegisterRequest& r) {
  if (aliases_.count(NameKey(r.tenant, r.name)) > 0) {
    return NameTaken(r.tenant, r.name, "alias");
  }
  const auto it = entries_.find(NameKey(r.tenant, r.name));
  using Mode = RegisterRequest::Mode;
  if (it == entries_.end()) {
    if (r.mode == Mode::kUpdate) return AdapterNotFound(r.tenant, r.name);
    return CheckEtag(r.etag, 0);
  }
  if (r.mode == Mode::kCreate) return NameTaken(r.tenant, r.name, "adapter");
  RETURN_IF_ERROR(CheckEtag(r.etag, it->second.row.etag));
  return it->second.is_draining ? Draining(r.tenant, r.name) : absl::OkStatus();
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::Register(
    const RegisterRequest& r) {
  absl::StatusOr<AdapterInfo> info = RegisterFrom(r);
  if (!r.upload_dir.empty()) content_->RemoveUpload(r.upload_dir);
  return info;
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::RegisterFrom(
    const RegisterRequest& r) {
  RETURN_IF_ERROR(CheckId("tenant id", r.tenant));
  RETURN_IF_ERROR(CheckId("adapter id", r.name));
  RETURN_IF_ERROR(CheckMetadata(r.display_name, r.labels));
  {
    MutexLock lock(&mu_);
    RETURN_IF_ERROR(CheckRegister(r));
  }
  ASSIGN_OR_RETURN(const Source source, FindSource(r));
  // What is verified is our own copy: the source may change meanwhile.
  ASSIGN_OR_RETURN(
      const std::unique_ptr<ContentStore::Staged> staged,
      content_->Stage(source.config_path, source.model_path, options_.limits));
  const std::string digest = staged->digest().ToHex();
  if (!r.expected_sha256.empty() &&
      !absl::EqualsIgnoreCase(r.expected_sha256, digest)) {
    return WithReason(absl::InvalidArgumentError(absl::StrCat(
                          "expected_sha256 is ", Quote(r.expected_sha256, 80),
                          ", the files have ", digest)),
                      "DIGEST_MISMATCH");
  }
  ASSIGN_OR_RETURN(
      const std::shared_ptr<const AdapterWeights> weights,
      ReadPeftAdapter(fs_, staged->dir(), base_.config, options_.limits,
                      options_.dtype, base_weights()));
  if (r.validate_only) {
    MutexLock lock(&mu_);
    RETURN_IF_ERROR(CheckRegister(r));
    return MakeInfo(MakeEntry(r, *weights, staged->size_bytes()));
  }
  MutexLock commit(&commit_mu_);
  return Commit(r, *staged, *weights);
}

Entry AdapterStoreImpl::MakeEntry(const RegisterRequest& r,
                                  const AdapterWeights& weights,
                                  uint64_t size_bytes) {
  const absl::Time now = ToMicros(clock_.WallNow());
  Entry entry;
  const auto it = entries_.find(NameKey(r.tenant, r.name));
  if (it != entries_.end()) {
    entry = it->second;
  } else {
    entry.row.tenant = r.tenant;
    entry.row.name = r.name;
    entry.row.uid = absl::StrFormat("%016x%016x", RandomSeed(), RandomSeed());
    entry.row.create_time = now;
  }
  if (!r.display_name.empty()) entry.row.display_name = r.display_name;
  if (!r.labels.empty()) entry.row.labels = r.labels;
  entry.row.source_path = r.path;
  entry.row.update_time = now;
  AdapterKey key;
  key.tenant = r.tenant;
  key.name = r.name;
  key.version =
      entry.versions.empty() ? 1 : entry.newest().info.key.version + 1;
  key.digest = weights.digest;
  auto version = std::make_shared<Version>();
  version->info = MakeVersionInfo(weights, std::move(key), base_.fingerprint,
                                  size_bytes, now);
  entry.versions.push_back(std::move(version));
  return entry;
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::Commit(
    const RegisterRequest& r, const ContentStore::Staged& staged,
    const AdapterWeights& weights) {
  Entry entry;
  {
    MutexLock lock(&mu_);
    RETURN_IF_ERROR(CheckRegister(r));
    const auto it = entries_.find(NameKey(r.tenant, r.name));
    if (it != entries_.end()) {
      const AdapterVersionInfo& newest = it->second.newest().info;
      if (newest.key.digest == weights.digest && IsCompatible(newest)) {
        return MakeInfo(it->second);
      }
    }
    entry = MakeEntry(r, weights, staged.size_bytes());
  }
  const AdapterVersionInfo& info = entry.newest().info;
  const bool is_new = entry.versions.size() == 1;
  absl::Status status = content_->Commit(staged);
  // After a failed sync the log may hold the transaction all the same, and it
  // would be there after a crash: then its files must be there too. If not,
  // they are swept at the next start.
  bool may_be_registered = false;
  if (status.ok()) {
    absl::StatusOr<uint64_t> etag =
        is_new ? registry_->CreateAdapter(entry.row, info)
               : registry_->AddVersion(entry.row, info);
    status = etag.status();
    may_be_registered = status.code() == absl::StatusCode::kInternal;
    if (etag.ok()) entry.row.etag = *etag;
  }
  if (!status.ok()) {
    if (!may_be_registered && !IsKnownDigest(weights.digest)) {
      RemoveContent(weights.digest);
    }
    return status;
  }
  const bool is_pinned = entry.row.pinned;
  AdapterInfo result;
  {
    MutexLock lock(&mu_);
    Entry& published = entries_[NameKey(r.tenant, r.name)];
    // Draining and use may have changed since the copy was made.
    entry.is_draining = published.is_draining;
    entry.last_used = published.last_used;
    published = std::move(entry);
    LogEvent(
        is_new ? AdapterEvent::Kind::kAdded : AdapterEvent::Kind::kModified,
        published);
    result = MakeInfo(published);
    if (is_pinned) {
      // The pin follows the newest version.
      const auto& versions = published.versions;
      loader_->SetPinned(versions[versions.size() - 2]->info.key, false);
      loader_->SetPinned(result.newest.key, true);
      loader_->Prefetch(result.newest.key, versions.back()->users);
    }
  }
  Log(LogLevel::kInfo, "adapter registered",
      {{"adapter", result.newest.key.ToString()},
       {"digest", result.newest.key.digest.ToShortHex()}});
  return result;
}

bool AdapterStoreImpl::IsKnownDigest(const Digest& digest) {
  MutexLock lock(&mu_);
  for (const auto& [key, entry] : entries_) {
    for (const auto& version : entry.versions) {
      if (version->info.key.digest == digest) return true;
    }
  }
  return false;
}

void AdapterStoreImpl::RemoveContent(const Digest& digest) {
  const absl::Status status = content_->Remove(digest);
  if (status.ok()) return;
  Log(LogLevel::kWarning, "adapter files stay until the next start",
      {{"digest", digest.ToShortHex()},
       {"error", std::string(status.message())}});
}

absl::StatusOr<HostCache::Weights> AdapterStoreImpl::ReadVersion(
    const AdapterKey& key) {
  ASSIGN_OR_RETURN(
      HostCache::Weights weights,
      ReadPeftAdapter(fs_, content_->Path(key.digest), base_.config,
                      options_.limits, options_.dtype, base_weights()));
  if (weights->digest == key.digest) return weights;
  return WithReason(
      absl::DataLossError(absl::StrCat(
          "stored files of adapter ", key.ToString(), " have digest ",
          weights->digest.ToShortHex(), ", expected ", key.digest.ToShortHex(),
          ": they were damaged")),
      "ADAPTER_DAMAGED");
}

// ---- deletion ---------------------------------------------------------------

absl::Status AdapterStoreImpl::BeginDelete(const std::string& tenant,
                                           const std::string& name,
                                           std::optional<uint64_t> etag) {
  MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(Entry* const entry, Find(tenant, name));
  RETURN_IF_ERROR(CheckEtag(etag, entry->row.etag));
  if (!entry->is_draining) {
    entry->is_draining = true;
    LogEvent(AdapterEvent::Kind::kModified, *entry);
  }
  return absl::OkStatus();
}

void AdapterStoreImpl::CancelDelete(const std::string& tenant,
                                    const std::string& name) {
  MutexLock lock(&mu_);
  const absl::StatusOr<Entry*> entry = Find(tenant, name);
  if (!entry.ok() || !(*entry)->is_draining) return;
  (*entry)->is_draining = false;
  LogEvent(AdapterEvent::Kind::kModified, **entry);
}

absl::Status AdapterStoreImpl::FinishDelete(const std::string& tenant,
                                            const std::string& name) {
  MutexLock commit(&commit_mu_);
  std::vector<AdapterKey> keys;
  bool was_draining = false;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(Entry* const entry, Find(tenant, name));
    const int64_t users = entry->users();
    if (users > 0) return InUse(tenant, name, users);
    was_draining = entry->is_draining;
    entry->is_draining = true;  // no new users from here on
    for (const auto& version : entry->versions) {
      keys.push_back(version->info.key);
    }
  }
  absl::Status status;
  for (const AdapterKey& key : keys) {
    status.Update(loader_->Unload(key, Tier::kDisk).status());
  }
  if (status.ok()) status = registry_->DeleteAdapter(tenant, name);
  if (!status.ok()) {
    if (!was_draining) CancelDelete(tenant, name);
    return status;
  }
  {
    MutexLock lock(&mu_);
    const auto it = entries_.find(NameKey(tenant, name));
    LogEvent(AdapterEvent::Kind::kDeleted, it->second);
    entries_.erase(it);
    for (auto alias = aliases_.begin(); alias != aliases_.end();) {
      const bool goes =
          alias->second.tenant == tenant && alias->second.target == name;
      alias = goes ? aliases_.erase(alias) : std::next(alias);
    }
  }
  for (const AdapterKey& key : keys) {
    loader_->SetPinned(key, false);
    if (!IsKnownDigest(key.digest)) RemoveContent(key.digest);
  }
  return absl::OkStatus();
}

// ---- aliases ----------------------------------------------------------------

absl::StatusOr<AliasInfo> AdapterStoreImpl::MakeAliasInfo(
    const Registry::Alias& alias) {
  AdapterRef ref;
  ref.tenant = alias.tenant;
  ref.name = alias.target;
  ref.version = alias.version;
  ASSIGN_OR_RETURN(const Entry* entry, Find(ref.tenant, ref.name));
  ASSIGN_OR_RETURN(const std::shared_ptr<const Version> version,
                   FindVersion(*entry, ref));
  return AliasInfo{alias.tenant, alias.name, version->info.key, alias.etag};
}

absl::StatusOr<AliasInfo> AdapterStoreImpl::SetAlias(
    const std::string& tenant, const std::string& alias,
    const AdapterRef& target, std::optional<uint64_t> etag) {
  RETURN_IF_ERROR(CheckId("tenant id", tenant));
  RETURN_IF_ERROR(CheckId("alias", alias));
  if (target.tenant != tenant) {
    return WithReason(
        absl::InvalidArgumentError(absl::StrCat(
            "alias ", Describe(tenant, alias),
            " cannot point to an adapter of tenant ", Quote(target.tenant))),
        "INVALID_NAME");
  }
  MutexLock commit(&commit_mu_);
  Registry::Alias row{tenant, alias, target.name, 0, 0};
  {
    MutexLock lock(&mu_);
    if (entries_.count(NameKey(tenant, alias)) > 0) {
      return NameTaken(tenant, alias, "adapter");
    }
    if (aliases_.count(NameKey(tenant, target.name)) > 0) {
      return WithReason(
          absl::InvalidArgumentError(absl::StrCat(
              "alias ", Describe(tenant, alias),
              " must point to an adapter, not to alias ", Quote(target.name))),
          "INVALID_NAME");
    }
    const auto it = aliases_.find(NameKey(tenant, alias));
    RETURN_IF_ERROR(
        CheckEtag(etag, it == aliases_.end() ? 0 : it->second.etag));
    ASSIGN_OR_RETURN(const Entry* entry, Find(tenant, target.name));
    if (entry->is_draining) return Draining(tenant, target.name);
    ASSIGN_OR_RETURN(const std::shared_ptr<const Version> version,
                     FindVersion(*entry, target));
    row.version = version->info.key.version;
    if (it != aliases_.end() && it->second.target == row.target &&
        it->second.version == row.version) {
      return MakeAliasInfo(it->second);
    }
  }
  ASSIGN_OR_RETURN(row.etag, registry_->PutAlias(row));
  MutexLock lock(&mu_);
  aliases_[NameKey(tenant, alias)] = row;
  return MakeAliasInfo(row);
}

absl::StatusOr<AliasInfo> AdapterStoreImpl::GetAlias(const std::string& tenant,
                                                     const std::string& alias) {
  MutexLock lock(&mu_);
  const auto it = aliases_.find(NameKey(tenant, alias));
  if (it == aliases_.end()) return AliasNotFound(tenant, alias);
  return MakeAliasInfo(it->second);
}

std::vector<AliasInfo> AdapterStoreImpl::ListAliases(
    const std::string& tenant) {
  MutexLock lock(&mu_);
  std::vector<AliasInfo> result;
  for (auto it = aliases_.lower_bound(NameKey(tenant, ""));
       it != aliases_.end() && it->first.first == tenant; ++it) {
    absl::StatusOr<AliasInfo> info = MakeAliasInfo(it->second);
    if (info.ok()) result.push_back(*std::move(info));
  }
  return result;
}

absl::Status AdapterStoreImpl::DeleteAlias(const std::string& tenant,
                                           const std::string& alias,
                                           std::optional<uint64_t> etag) {
  MutexLock commit(&commit_mu_);
  {
    MutexLock lock(&mu_);
    const auto it = aliases_.find(NameKey(tenant, alias));
    if (it == aliases_.end()) return AliasNotFound(tenant, alias);
    RETURN_IF_ERROR(CheckEtag(etag, it->second.etag));
  }
  RETURN_IF_ERROR(registry_->DeleteAlias(tenant, alias));
  MutexLock lock(&mu_);
  aliases_.erase(NameKey(tenant, alias));
  return absl::OkStatus();
}

// ---- use --------------------------------------------------------------------

absl::StatusOr<VersionRef> AdapterStoreImpl::Resolve(const AdapterRef& ref) {
  MutexLock lock(&mu_);
  AdapterRef target = ref;
  const auto alias = aliases_.find(NameKey(ref.tenant, ref.name));
  if (alias != aliases_.end()) {
    if (ref.version.has_value() || ref.digest.has_value()) {
      return WithReason(
          absl::InvalidArgumentError(absl::StrCat(
              "alias ", Describe(ref.tenant, ref.name),
              " points to one version and cannot be given another")),
          "INVALID_NAME");
    }
    target.name = alias->second.target;
    target.version = alias->second.version;
  }
  ASSIGN_OR_RETURN(Entry* const entry, Find(target.tenant, target.name));
  if (entry->is_draining) return AdapterNotFound(ref.tenant, ref.name);
  ASSIGN_OR_RETURN(std::shared_ptr<const Version> version,
                   FindVersion(*entry, target));
  RETURN_IF_ERROR(CheckCompatible(version->info));
  entry->last_used = clock_.WallNow();
  auto hold = std::make_shared<const Hold>(std::move(version));
  return VersionRef(hold, &hold->version->info);
}

void AdapterStoreImpl::Prefetch(const AdapterKey& key) {
  std::shared_ptr<std::atomic<int64_t>> users;
  {
    MutexLock lock(&mu_);
    const auto it = entries_.find(NameKey(key.tenant, key.name));
    if (it == entries_.end()) return;
    for (const auto& version : it->second.versions) {
      if (version->info.key == key) users = version->users;
    }
  }
  if (users != nullptr) loader_->Prefetch(key, std::move(users));
}

// ---- residency --------------------------------------------------------------

absl::Status AdapterStoreImpl::LoadTo(const std::string& tenant,
                                      const std::string& name, Tier tier,
                                      std::optional<bool> pinned,
                                      absl::Duration timeout) {
  std::shared_ptr<const Version> version;
  bool was_pinned = false;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Entry* entry, Find(tenant, name));
    if (entry->is_draining) return Draining(tenant, name);
    version = entry->versions.back();
    was_pinned = entry->row.pinned;
  }
  const AdapterKey& key = version->info.key;
  RETURN_IF_ERROR(CheckCompatible(version->info));
  // Held while it loads, and pinned before, so that nothing pushes it out
  // between the load and the pin.
  const Hold hold(version);
  if (pinned.value_or(false)) loader_->SetPinned(key, true);
  const absl::Status status = loader_->Load(key, version->users, tier, timeout);
  if (!status.ok()) {
    if (!was_pinned) loader_->SetPinned(key, false);
    return status;
  }
  if (!pinned.has_value() || *pinned == was_pinned) return absl::OkStatus();
  return SetPinned(tenant, name, *pinned).status();
}

absl::StatusOr<int64_t> AdapterStoreImpl::UnloadTo(const std::string& tenant,
                                                   const std::string& name,
                                                   Tier tier) {
  if (tier == Tier::kDevice) return 0;
  std::vector<AdapterKey> keys;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Entry* entry, Find(tenant, name));
    if (entry->row.pinned) {
      return WithReason(absl::FailedPreconditionError(absl::StrCat(
                            "adapter ", Describe(tenant, name), " is pinned")),
                        "ADAPTER_PINNED");
    }
    const int64_t users = entry->users();
    if (users > 0) return InUse(tenant, name, users);
    for (const auto& version : entry->versions) {
      keys.push_back(version->info.key);
    }
  }
  int64_t freed = 0;
  for (const AdapterKey& key : keys) {
    ASSIGN_OR_RETURN(const int64_t bytes, loader_->Unload(key, tier));
    freed += bytes;
  }
  if (freed > 0) OnMoved(keys);
  return freed;
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::SetPinned(
    const std::string& tenant, const std::string& name, bool pinned) {
  ASSIGN_OR_RETURN(AdapterInfo info, ChangeRow(tenant, name, std::nullopt,
                                               [&](Registry::Adapter* row) {
                                                 row->pinned = pinned;
                                               }));
  loader_->SetPinned(info.newest.key, pinned);
  return info;
}

absl::StatusOr<std::unique_ptr<AdapterStore>> OpenStore(
    FileSystem& fs, const Clock& clock, const AdapterStore::Base& base,
    Ops& ops, const AdapterStoreOptions& options) {
  auto store = std::make_unique<AdapterStoreImpl>(fs, clock, base, options);
  RETURN_IF_ERROR(store->Init(ops));
  return std::unique_ptr<AdapterStore>(std::move(store));
}

}  // namespace

const char* Name(Tier tier) {
  switch (tier) {
    case Tier::kDisk:
      return "disk";
    case Tier::kHost:
      return "host";
    case Tier::kDevice:
      return "device";
  }
  return "unknown";
}

const char* Name(AdapterState state) {
  switch (state) {
    case AdapterState::kLoading:
      return "loading";
    case AdapterState::kActive:
      return "active";
    case AdapterState::kDraining:
      return "draining";
    case AdapterState::kFailed:
      return "failed";
    case AdapterState::kIncompatible:
      return "incompatible";
  }
  return "unknown";
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
