// An AdapterStore is everything this server knows of adapters and all places
// where their weights can be: registry and content store on disk, host cache,
// device pool.
//
//   disk --(loader threads)--> host --(loader threads pack)--> device
//
// Registration is all or nothing: files are verified, fsynced into
// state_dir/adapters/<digest>/, and one SQLite transaction makes the version
// visible. An adapter in use (leased) is never freed. Loading happens on
// threads of its own; the engine thread only looks and takes leases.
//
// Thread-safe. Calls marked "blocks" do I/O: not for the engine thread.

#ifndef LORIKEET_ADAPTERS_ADAPTER_STORE_H_
#define LORIKEET_ADAPTERS_ADAPTER_STORE_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/adapter_info.h"
#include "adapters/adapter_key.h"
#include "adapters/adapter_weights.h"
#include "adapters/alias.h"
#include "adapters/audit.h"
#include "adapters/base_weights.h"
#include "adapters/peft_reader.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "kernels/ops.h"
#include "model/model.h"

namespace lorikeet {

struct AdapterStoreOptions {
  std::string state_dir;  // created; empty = in a private temporary folder
  std::vector<std::string> roots;  // directories that may be registered from
  int64_t host_bytes = 0;          // budget; > 0
  int64_t device_bytes = 0;        // budget; > 0
  int max_device_adapters = 0;     // --max-loras: slots; > 0
  PeftLimits limits;
  std::optional<DType> dtype;  // --adapter-dtype
  int loader_threads = 1;
  // Newest versions of an adapter that are kept; 0 = all. Older ones go when a
  // version is added, unless an alias names them or a request uses them.
  int version_retention = 0;
};

// Who changes something, and on what condition.
struct Change {
  std::optional<uint64_t> etag;  // ABORTED on mismatch
  std::string actor{kCliActor};  // for the audit trail
  std::string reason;            // the same; free text
};

// Keeps one version's weights on the device. Move-only, cheap; may be dropped
// on any thread.
class DeviceLease {
 public:
  DeviceLease() = default;
  DeviceLease(std::shared_ptr<const LoraSlot> slot, std::shared_ptr<void> pin)
      : slot_(std::move(slot)), pin_(std::move(pin)) {}
  explicit operator bool() const { return slot_ != nullptr; }
  const LoraSlot* slot() const { return slot_.get(); }

 private:
  std::shared_ptr<const LoraSlot> slot_;
  std::shared_ptr<void> pin_;
};

// A request's hold on a version from admission to its last byte: the version
// cannot be deleted under it, and its requests are counted. Copyable.
using VersionRef = std::shared_ptr<const AdapterVersionInfo>;

// What a name means for one request.
struct Route {
  VersionRef version;
  VersionRef shadow;  // gets the request too; null = none
  // Of an alias; "" for an adapter or a version.
  std::string alias;
  uint64_t alias_etag = 0;
  // True if how the request ends is worth counting: the alias has candidates,
  // a shadow or a rule.
  bool is_watched = false;
  // Of the adapter; nullopt = as the server says.
  std::optional<MergePolicy> merge_policy;
  // How `version` is judged; nullopt if it is no candidate or has no rule.
  std::optional<RollbackRule> rule;
};

class AdapterStore {
 public:
  // Opens or creates the state directory; a stale half-registration is swept.
  // Errors: FAILED_PRECONDITION if the directory belongs to a newer program
  // or is in use by another process; DATA_LOSS if the registry is damaged.
  static absl::StatusOr<std::unique_ptr<AdapterStore>> Open(
      FileSystem& fs, const Clock& clock, const Model& model, Ops& ops,
      const AdapterStoreOptions& options);
  // The same for a base of which only these are known (tests, tools).
  struct Base {
    ModelConfig config;
    Digest fingerprint;
    std::optional<BaseWeights> weights;  // nullopt: plain LoRA only
  };
  static absl::StatusOr<std::unique_ptr<AdapterStore>> Open(
      FileSystem& fs, const Clock& clock, const Base& base, Ops& ops,
      const AdapterStoreOptions& options);
  virtual ~AdapterStore() = default;

  // ---- registration and names (block) --------------------------------------

  struct RegisterRequest {
    std::string tenant{kDefaultTenant};
    std::string name;
    std::string display_name;
    std::vector<std::pair<std::string, std::string>> labels;
    std::string path;             // directory under an allowed root
    std::string upload_dir;       // or a finished upload (trusted path)
    std::string expected_sha256;  // "" = not checked
    bool trusted_path = false;    // command line of the operator: any path
    bool validate_only = false;
    // Create: ALREADY_EXISTS if the name is taken. Update: adds a version to an
    // existing adapter, NOT_FOUND without allow_missing. Same digest as the
    // newest version = nothing to do.
    enum class Mode { kCreate, kUpdate, kCreateOrUpdate };
    Mode mode = Mode::kCreate;
    std::optional<uint64_t> etag;  // ABORTED on mismatch
    std::string actor{kCliActor};
    // Runs the prompts of the adapter's golden.jsonl, if it has one, before
    // anything is registered; the version can be used as any other meanwhile.
    // Not OK = refused. Null = golden.jsonl is kept and not looked at.
    std::function<absl::Status(const VersionRef&, absl::string_view golden)>
        gate;
  };
  // Verifies, stores, commits. Running requests keep their version.
  // Errors: INVALID_ARGUMENT, UNIMPLEMENTED, DATA_LOSS as ReadPeftAdapter;
  // PERMISSION_DENIED for a path outside the roots; ALREADY_EXISTS; NOT_FOUND;
  // RESOURCE_EXHAUSTED if the disk is full: then nothing is registered.
  virtual absl::StatusOr<AdapterInfo> Register(const RegisterRequest& r) = 0;
  // A fresh folder for an upload; removed by Register or RemoveUpload.
  virtual absl::StatusOr<std::string> NewUploadDir() = 0;
  virtual void RemoveUpload(const std::string& dir) = 0;

  virtual absl::StatusOr<AdapterInfo> Get(const std::string& tenant,
                                          const std::string& name) = 0;
  // By name. At most `limit` of those after `after` ("": all).
  struct AdapterPage {
    std::vector<AdapterInfo> adapters;
    int64_t total = 0;  // of the tenant
  };
  virtual AdapterPage ListPage(const std::string& tenant,
                               const std::string& after, int64_t limit) = 0;
  std::vector<AdapterInfo> ListAll(const std::string& tenant) {
    return ListPage(tenant, "", std::numeric_limits<int64_t>::max()).adapters;
  }
  virtual absl::StatusOr<std::vector<AdapterVersionInfo>> ListVersions(
      const std::string& tenant, const std::string& name) = 0;
  // Changes display name and labels; nullopt = unchanged.
  virtual absl::StatusOr<AdapterInfo> UpdateMetadata(
      const std::string& tenant, const std::string& name,
      std::optional<std::string> display_name,
      std::optional<std::vector<std::pair<std::string, std::string>>> labels,
      std::optional<uint64_t> etag) = 0;
  // Stops new requests at once (kDraining); they are NOT_FOUND from then on.
  virtual absl::Status BeginDelete(const std::string& tenant,
                                   const std::string& name,
                                   const Change& change) = 0;
  // Undoes BeginDelete.
  virtual void CancelDelete(const std::string& tenant,
                            const std::string& name) = 0;
  // Removes registry entry, aliases to nothing else, files and memory.
  // Errors: FAILED_PRECONDITION naming the count while requests use it.
  virtual absl::Status FinishDelete(const std::string& tenant,
                                    const std::string& name) = 0;

  struct AliasRequest {
    std::string tenant, alias;
    struct Target {
      AdapterRef ref;  // without a version: the newest of now
      uint32_t weight = 1;
    };
    struct Shadow {
      AdapterRef ref;
      double share = 0;
    };
    std::vector<Target> targets;  // the stable one first
    std::optional<Shadow> shadow;
    std::optional<RollbackRule> rule;
    Change change;
  };
  // Creates or replaces an alias. Errors: INVALID_ARGUMENT as CheckAlias, or
  // for an alias to an alias; NOT_FOUND naming the target; ALREADY_EXISTS;
  // ABORTED.
  virtual absl::StatusOr<AliasInfo> PutAlias(const AliasRequest& request) = 0;
  // The same with one target.
  absl::StatusOr<AliasInfo> SetAlias(const std::string& tenant,
                                     const std::string& alias,
                                     const AdapterRef& target,
                                     std::optional<uint64_t> etag);
  // Gives all requests to `target`, by default the one candidate or the shadow.
  // Errors: NOT_FOUND naming alias or target; FAILED_PRECONDITION (reason
  // ALIAS_NO_CANDIDATE); ABORTED.
  virtual absl::StatusOr<AliasInfo> PromoteAlias(
      const std::string& tenant, const std::string& alias,
      const std::optional<AdapterRef>& target, const Change& change) = 0;
  // Takes candidates and shadow back, or without any the last promotion.
  // Errors: NOT_FOUND; FAILED_PRECONDITION (reason ALIAS_NO_PREVIOUS); ABORTED.
  virtual absl::StatusOr<AliasInfo> RollBackAlias(const std::string& tenant,
                                                  const std::string& alias,
                                                  const Change& change) = 0;
  virtual absl::StatusOr<AliasInfo> GetAlias(const std::string& tenant,
                                             const std::string& alias) = 0;
  virtual std::vector<AliasInfo> ListAliases(const std::string& tenant) = 0;
  virtual absl::Status DeleteAlias(const std::string& tenant,
                                   const std::string& alias,
                                   const Change& change) = 0;
  // Returns entries of the audit trail, newest first.
  virtual absl::StatusOr<std::vector<AuditEntry>> ReadAudit(
      const AuditQuery& query) = 0;

  // ---- use (never blocks) --------------------------------------------------

  // Resolves an adapter (its newest version), a version or an alias to one
  // version and holds it. `key` chooses between the targets of an alias, always
  // in the same way; "" = the stable one. Errors: NOT_FOUND;
  // FAILED_PRECONDITION if incompatible with this base.
  virtual absl::StatusOr<Route> FindRoute(const AdapterRef& ref,
                                          absl::string_view key) = 0;
  absl::StatusOr<VersionRef> Resolve(const AdapterRef& ref);

  // Asks for `key` to be brought to the device in the background; many calls
  // cause one load. Without room it waits until a lease is dropped. What was
  // brought in may be evicted again before it is leased, so whoever waits asks
  // again each time that TryLease gives nothing. A load that failed for good is
  // not repeated within a second. REQUIRES: the caller holds a VersionRef.
  virtual void Prefetch(const AdapterKey& key) = 0;
  // Tells that `key` is likely to be needed: brings it to host memory in the
  // background if there is room that nobody has. REQUIRES: as Prefetch.
  virtual void Hint(const AdapterKey& key) = 0;
  // Returns a lease if the version is on the device now, else an empty one.
  virtual DeviceLease TryLease(const AdapterKey& key) = 0;
  // Not OK if the last attempt to load `key` failed for good.
  virtual absl::Status LoadError(const AdapterKey& key) = 0;
  // `callback` runs (on a loader thread, quickly) when some load ended; it must
  // not call SetLoadedCallback. After this returns the old one does not run.
  virtual void SetLoadedCallback(std::function<void()> callback) = 0;

  // ---- residency (block) ---------------------------------------------------

  // Brings the newest version to `tier` and waits until `deadline`.
  // Errors: RESOURCE_EXHAUSTED if it cannot fit beside what is pinned and in
  // use; DEADLINE_EXCEEDED.
  virtual absl::Status LoadTo(const std::string& tenant,
                              const std::string& name, Tier tier,
                              std::optional<bool> pinned,
                              absl::Duration timeout) = 0;
  // Frees the memory above `tier`; returns the bytes freed.
  // Errors: FAILED_PRECONDITION while requests use it or it is pinned.
  virtual absl::StatusOr<int64_t> UnloadTo(const std::string& tenant,
                                           const std::string& name,
                                           Tier tier) = 0;
  virtual absl::StatusOr<AdapterInfo> SetPinned(const std::string& tenant,
                                                const std::string& name,
                                                bool pinned) = 0;
  // For requests that come later and ask for no variant; nullopt = as the
  // server says.
  virtual absl::StatusOr<AdapterInfo> SetMergePolicy(
      const std::string& tenant, const std::string& name,
      std::optional<MergePolicy> policy) = 0;

  struct Residency {
    int host_adapters = 0;
    int64_t host_bytes = 0, host_bytes_max = 0;
    int device_adapters = 0, device_slots = 0;
    int64_t device_bytes = 0, device_bytes_max = 0;
    int64_t loads = 0, evictions = 0;
  };
  virtual Residency GetResidency() = 0;

  // Returns events with sequence > `after`, waiting up to `timeout` for the
  // first; `after` 0 = from the first of this process. Numbers of different
  // processes differ. Errors: OUT_OF_RANGE if `after` is older than what is
  // kept.
  virtual absl::StatusOr<std::vector<AdapterEvent>> WaitForEvents(
      uint64_t after, absl::Duration timeout) = 0;
  virtual uint64_t last_event() = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_STORE_H_
