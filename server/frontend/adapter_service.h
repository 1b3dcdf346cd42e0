// The AdapterService is the use cases of the control plane over the adapter
// store and the engine: register, update, upload, name, load, unload, delete.
//
// What runs is settled by an in-flight policy. A removal that is given up (its
// caller went away, or requests would not end) leaves the adapter as it was.
//
// Thread-safe. Everything but the WaitForEvents of a watch does I/O or waits:
// not for threads of a transport.

#ifndef LORIKEET_SERVER_FRONTEND_ADAPTER_SERVICE_H_
#define LORIKEET_SERVER_FRONTEND_ADAPTER_SERVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/adapter_store.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "server/engine/engine.h"
#include "server/frontend/adapter_upload.h"
#include "server/frontend/alias_monitor.h"
#include "server/frontend/golden_gate.h"
#include "server/frontend/model_info.h"

namespace lorikeet {

using Labels = std::vector<std::pair<std::string, std::string>>;

// What happens to requests that still use an adapter being removed.
enum class InFlightPolicy { kDrain, kAbort, kFailIfBusy };

// How long a call may wait, and whether anybody still wants its answer.
struct CallLimits {
  absl::Duration timeout = absl::InfiniteDuration();  // from now
  std::function<bool()> cancelled = [] { return false; };
  std::string actor{kCliActor};  // who calls, for the audit trail
};

// Where the bytes of a registration come from.
struct AdapterOrigin {
  std::string path;             // directory on the server
  std::string expected_sha256;  // of the content; "" = not checked
};

struct CreateAdapterInput {
  std::string tenant;
  std::string name;
  std::string display_name;
  std::string base_model;  // "" = not checked
  AdapterOrigin origin;
  Labels labels;
  bool pinned = false;
  bool validate_only = false;
  std::string actor{kCliActor};  // for the audit trail
};

struct UpdateAdapterInput {
  std::string tenant;
  std::string name;
  std::string base_model;                   // "" = not checked
  std::optional<std::string> display_name;  // nullopt = unchanged
  std::optional<Labels> labels;
  std::optional<AdapterOrigin> origin;
  std::optional<bool> pinned;
  std::optional<std::string> merge_policy;  // "" = as the server says
  std::optional<uint64_t> etag;
  bool allow_missing = false;
  bool validate_only = false;
  std::string actor{kCliActor};  // for the audit trail
};

// An alias as a caller wrote it.
struct AliasInput {
  std::string tenant, alias;
  struct Target {
    std::string version;  // "name@version" or "name"
    uint32_t weight = 0;  // of an only target it does not matter
  };
  std::vector<Target> targets;
  std::string shadow;  // "" = none
  double shadow_share = 0;
  std::optional<RollbackRule> rule;
  Change change;
};

// An alias with what was counted since its last change.
struct AliasView {
  AliasInfo info;
  AliasCounts counts;
};

// One page of the audit trail.
struct AuditPage {
  std::vector<AuditEntry> entries;  // newest first
  bool has_more = false;
};

class AdapterService {
 public:
  // All must outlive this. `drain_timeout` is the wait of kDrain if a call
  // names none.
  AdapterService(const ModelInfo& model, AdapterStore& store, Engine& engine,
                 GoldenGate& gate, const AliasMonitor& monitor, FileSystem& fs,
                 const Clock& clock, absl::Duration drain_timeout);

  // Errors of all: NOT_FOUND / ADAPTER_NOT_FOUND, ALIAS_NOT_FOUND or
  // TENANT_NOT_FOUND; INVALID_ARGUMENT naming field, value and limit; ABORTED /
  // ETAG_MISMATCH; and of the store, see adapters/adapter_store.h.
  absl::StatusOr<AdapterInfo> Create(const CreateAdapterInput& input);
  absl::StatusOr<AdapterInfo> Update(const UpdateAdapterInput& input);
  absl::StatusOr<AdapterInfo> Get(const std::string& tenant,
                                  const std::string& name);
  // A page, see AdapterStore.
  absl::StatusOr<AdapterStore::AdapterPage> List(const std::string& tenant,
                                                 const std::string& after,
                                                 int64_t limit);
  absl::StatusOr<std::vector<AdapterInfo>> ListAll(const std::string& tenant);
  absl::StatusOr<std::vector<AdapterVersionInfo>> ListVersions(
      const std::string& tenant, const std::string& name);

  // Errors: also FAILED_PRECONDITION / ADAPTER_IN_USE under kFailIfBusy, or if
  // requests did not end though they were told to.
  absl::Status Delete(const std::string& tenant, const std::string& name,
                      std::optional<uint64_t> etag, InFlightPolicy policy,
                      std::optional<absl::Duration> drain_timeout,
                      const CallLimits& limits);

  // Errors: also RESOURCE_EXHAUSTED / ADAPTER_MEMORY_FULL; DEADLINE_EXCEEDED /
  // ADAPTER_LOADING.
  absl::StatusOr<AdapterInfo> Load(const std::string& tenant,
                                   const std::string& name, Tier tier,
                                   std::optional<bool> pinned,
                                   const CallLimits& limits);
  // Errors: also FAILED_PRECONDITION / ADAPTER_IN_USE or ADAPTER_PINNED.
  struct Unloaded {
    AdapterInfo info;
    int64_t freed_bytes = 0;  // over all tiers and versions
  };
  absl::StatusOr<Unloaded> Unload(const std::string& tenant,
                                  const std::string& name, Tier tier,
                                  InFlightPolicy policy,
                                  std::optional<absl::Duration> drain_timeout,
                                  const CallLimits& limits);

  // An upload in progress; FinishUpload registers what it received.
  absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginUpload();
  absl::StatusOr<AdapterInfo> FinishUpload(const CreateAdapterInput& input,
                                           AdapterUpload& upload);
  absl::StatusOr<AdapterInfo> FinishUpload(const UpdateAdapterInput& input,
                                           AdapterUpload& upload);

  // Errors: also INVALID_ARGUMENT / INVALID_SPLIT or INVALID_RULE.
  absl::StatusOr<AliasView> SetAlias(const AliasInput& input);
  // `target` "" = the one candidate, else the shadow.
  // Errors: also FAILED_PRECONDITION / ALIAS_NO_CANDIDATE.
  absl::StatusOr<AliasView> PromoteAlias(const std::string& tenant,
                                         const std::string& alias,
                                         const std::string& target,
                                         const Change& change);
  // Errors: also FAILED_PRECONDITION / ALIAS_NO_PREVIOUS.
  absl::StatusOr<AliasView> RollBackAlias(const std::string& tenant,
                                          const std::string& alias,
                                          const Change& change);
  absl::StatusOr<AliasView> GetAlias(const std::string& tenant,
                                     const std::string& alias);
  absl::StatusOr<std::vector<AliasView>> ListAliases(const std::string& tenant);
  absl::Status DeleteAlias(const std::string& tenant, const std::string& alias,
                           const Change& change);
  // Of one adapter or alias, or ("") of all.
  absl::StatusOr<AuditPage> ReadAudit(const AuditQuery& query);

  // Why an adapter is kFailed; OK otherwise.
  absl::Status LoadError(const AdapterInfo& adapter);

  // Events with sequence > `after`; see AdapterStore::WaitForEvents.
  absl::StatusOr<std::vector<AdapterEvent>> WaitForEvents(
      uint64_t after, absl::Duration timeout);
  uint64_t last_event();

 private:
  absl::Status CheckTenant(const std::string& tenant) const;
  absl::Status CheckName(const std::string& tenant, const std::string& name,
                         absl::string_view field) const;
  absl::Status CheckRegistration(const std::string& tenant,
                                 const std::string& name,
                                 const std::string& base_model) const;
  absl::StatusOr<AdapterInfo> Register(AdapterStore::RegisterRequest request);
  absl::StatusOr<AdapterRef> ParseTarget(const std::string& tenant,
                                         const std::string& text,
                                         const std::string& field) const;
  // What the store said of an alias, with counts or with the resource named.
  absl::StatusOr<AliasView> ToView(const std::string& tenant,
                                   const std::string& alias,
                                   absl::StatusOr<AliasInfo> info) const;
  absl::StatusOr<AdapterInfo> CreateFrom(const CreateAdapterInput& input,
                                         const std::string& upload_dir);
  absl::StatusOr<AdapterInfo> UpdateFrom(const UpdateAdapterInput& input,
                                         const std::string& upload_dir);
  // Returns once no request uses the adapter.
  absl::Status WaitUntilUnused(const std::string& tenant,
                               const std::string& name, InFlightPolicy policy,
                               absl::Duration drain_timeout,
                               const CallLimits& limits,
                               const std::function<absl::Status()>& attempt);

  const ModelInfo& model_;
  AdapterStore& store_;
  Engine& engine_;
  GoldenGate& gate_;
  const AliasMonitor& monitor_;
  FileSystem& fs_;
  const Clock& clock_;
  const absl::Duration drain_timeout_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_ADAPTER_SERVICE_H_
