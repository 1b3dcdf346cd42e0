// The store: what it is made of, and how a change is made.
//
// The catalogue in memory mirrors the registry, so that Resolve never touches
// the disk. A change is: under commit_mu_ write content and registry, then
// under mu_ change the catalogue and log an event. Locks are taken in the order
// commit_mu_, mu_, those of the loader; mu_ is never held over I/O.

#ifndef LORIKEET_ADAPTERS_ADAPTER_STORE_IMPL_H_
#define LORIKEET_ADAPTERS_ADAPTER_STORE_IMPL_H_

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/adapter_catalogue.h"
#include "adapters/adapter_loader.h"
#include "adapters/adapter_source.h"
#include "adapters/adapter_store.h"
#include "adapters/content_store.h"
#include "adapters/event_log.h"
#include "adapters/popularity.h"
#include "adapters/registry.h"
#include "adapters/state_dir.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/mutex.h"

namespace lorikeet {

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
  AdapterPage ListPage(const std::string& tenant, const std::string& after,
                       int64_t limit) override;
  absl::StatusOr<std::vector<AdapterVersionInfo>> ListVersions(
      const std::string& tenant, const std::string& name) override;
  absl::StatusOr<AdapterInfo> UpdateMetadata(
      const std::string& tenant, const std::string& name,
      std::optional<std::string> display_name,
      std::optional<std::vector<std::pair<std::string, std::string>>> labels,
      std::optional<uint64_t> etag) override;
  absl::Status BeginDelete(const std::string& tenant, const std::string& name,
                           const Change& change) override;
  void CancelDelete(const std::string& tenant,
                    const std::string& name) override;
  absl::Status FinishDelete(const std::string& tenant,
                            const std::string& name) override;

  absl::StatusOr<AliasInfo> PutAlias(const AliasRequest& request) override;
  absl::StatusOr<AliasInfo> PromoteAlias(
      const std::string& tenant, const std::string& alias,
      const std::optional<AdapterRef>& target, const Change& change) override;
  absl::StatusOr<AliasInfo> RollBackAlias(const std::string& tenant,
                                          const std::string& alias,
                                          const Change& change) override;
  absl::StatusOr<AliasInfo> GetAlias(const std::string& tenant,
                                     const std::string& alias) override;
  std::vector<AliasInfo> ListAliases(const std::string& tenant) override;
  absl::Status DeleteAlias(const std::string& tenant, const std::string& alias,
                           const Change& change) override;
  absl::StatusOr<std::vector<AuditEntry>> ReadAudit(
      const AuditQuery& query) override {
    return registry_->ReadAudit(query);
  }

  absl::StatusOr<Route> FindRoute(const AdapterRef& ref,
                                  absl::string_view key) override;
  void Prefetch(const AdapterKey& key) override;
  void Hint(const AdapterKey& key) override;
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
  absl::StatusOr<AdapterInfo> SetMergePolicy(
      const std::string& tenant, const std::string& name,
      std::optional<MergePolicy> policy) override;
  Residency GetResidency() override { return loader_->GetResidency(); }

  absl::StatusOr<std::vector<AdapterEvent>> WaitForEvents(
      uint64_t after, absl::Duration timeout) override {
    return events_.Wait(after, timeout);
  }
  uint64_t last_event() override { return events_.last(); }

 private:
  using Labels = std::vector<std::pair<std::string, std::string>>;
  using NameKey = AdapterCatalogue::NameKey;
  using Version = AdapterCatalogue::Version;
  using Hold = AdapterCatalogue::Hold;
  using Entry = AdapterCatalogue::Entry;

  static constexpr size_t kEventsKept = 1000;

  // ---- reading (adapter_store.cc) ------------------------------------------
  AdapterInfo MakeInfo(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LogEvent(AdapterEvent::Kind kind, const Entry& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    events_.Add(kind, MakeInfo(entry));
  }
  void OnMoved(const std::vector<AdapterKey>& keys);
  bool IsCompatible(const AdapterVersionInfo& version) const {
    return version.base_fingerprint == base_.fingerprint;
  }
  const BaseWeights* base_weights() const {
    return base_.weights.has_value() ? &*base_.weights : nullptr;
  }
  absl::Status CheckCompatible(const AdapterVersionInfo& version) const;
  // Changes a row in the registry and then in the catalogue.
  absl::StatusOr<AdapterInfo> ChangeRow(
      const std::string& tenant, const std::string& name,
      std::optional<uint64_t> etag,
      const std::function<void(Registry::Adapter*)>& change);
  // The time of the clock as the registry keeps it.
  absl::Time Now() const {
    return absl::FromUnixMicros(absl::ToUnixMicros(clock_.WallNow()));
  }

  AuditEntry MakeAudit(const std::string& actor, const std::string& action,
                       const std::string& tenant,
                       const std::string& name) const;

  // ---- registration (adapter_store_registration.cc) ------------------------
  absl::StatusOr<AdapterSource> FindSource(const RegisterRequest& r);
  // Whether a registration may go on, as far as names and etags go.
  absl::Status CheckRegister(const RegisterRequest& r)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // `remarks` go to the version's warnings.
  Entry MakeEntry(const RegisterRequest& r, const AdapterWeights& weights,
                  const std::vector<std::string>& remarks, uint64_t size_bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<AdapterInfo> RegisterFrom(const RegisterRequest& r);
  absl::StatusOr<AdapterInfo> Commit(const RegisterRequest& r,
                                     const ContentStore::Staged& staged,
                                     const AdapterWeights& weights,
                                     const std::vector<std::string>& remarks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(commit_mu_);
  // Stores `staged` and writes the last version of `entry` to the registry.
  absl::Status Write(const RegisterRequest& r,
                     const ContentStore::Staged& staged,
                     const std::vector<uint32_t>& retired, Entry* entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(commit_mu_);
  // Registers what is there already. Puts its files in place again if they were
  // damaged.
  absl::StatusOr<AdapterInfo> Repair(const AdapterInfo& info,
                                     const ContentStore::Staged& staged)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(commit_mu_);
  // Makes `entry` with its new last version what the name means.
  AdapterInfo Publish(Entry entry, bool is_new);
  // Takes versions beyond the retention out of use; returns their numbers.
  std::vector<uint32_t> BeginRetire(const Entry& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Frees memory and files of versions that no name means any more.
  void FreeVersions(const std::vector<AdapterKey>& keys)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(commit_mu_);
  // Removes the files of `digest` if no version has it.
  void RemoveUnknownContent(const Digest& digest)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(commit_mu_);

  // ---- the gate (adapter_store_gate.cc) ------------------------------------
  // Lets r.gate try `weights` before anybody else can.
  absl::Status RunGate(const RegisterRequest& r,
                       const ContentStore::Staged& staged,
                       const HostCache::Weights& weights);

  // ---- content (adapter_store_content.cc) ----------------------------------
  // What the loader reads. Damaged files are quarantined.
  absl::StatusOr<HostCache::Weights> ReadVersion(const AdapterKey& key);
  absl::Status Quarantine(const AdapterKey& key, const absl::Status& damage);

  // ---- residency (adapter_store_residency.cc) ------------------------------
  // Brings versions that are asked for a lot to the host, if there is room.
  void HintPopular();

  // ---- names (adapter_store_names.cc) --------------------------------------
  absl::StatusOr<AliasInfo> MakeAliasInfo(const Alias& alias)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<const Alias*> FindAlias(const std::string& tenant,
                                         const std::string& alias)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The version that an alias is to point to.
  absl::StatusOr<AliasTarget> FindTarget(const AdapterRef& ref)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Alias> MakeAlias(const AliasRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Replaces `old` (null = none) by `alias` in registry and catalogue.
  absl::StatusOr<AliasInfo> WriteAlias(const std::optional<Alias>& old,
                                       Alias alias, const std::string& action,
                                       const Change& change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(commit_mu_);
  // Holds the version for a request.
  VersionRef HoldVersion(Entry* entry, std::shared_ptr<const Version> version)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<VersionRef> HoldTarget(const std::string& tenant,
                                        const std::string& adapter,
                                        uint32_t version)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

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
  AdapterCatalogue catalogue_ ABSL_GUARDED_BY(mu_);
  // Versions that a gate tries; nobody can name them.
  struct Trial {
    std::shared_ptr<const Version> version;
    HostCache::Weights weights;
  };
  absl::flat_hash_map<AdapterKey, Trial> trials_ ABSL_GUARDED_BY(mu_);
  int64_t num_trials_ ABSL_GUARDED_BY(mu_) = 0;
  Popularity popularity_ ABSL_GUARDED_BY(mu_);
  // Last: its threads use all of the above.
  std::unique_ptr<AdapterLoader> loader_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_STORE_IMPL_H_
