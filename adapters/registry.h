// A Registry is the durable catalogue of adapters: versions, aliases, labels,
// and the trail of who changed what.
//
// Every mutation is one transaction (SQLite, WAL, synchronous=FULL) and durable
// when the call returns, its entry in the audit trail with it; a crash leaves
// the state before or after it, never between. The bytes of an adapter are in
// place before its version is. docs/formats/registry.md has the schema.
//
// Thread-safe. Calls block on disk: not for the engine thread.

#ifndef LORIKEET_ADAPTERS_REGISTRY_H_
#define LORIKEET_ADAPTERS_REGISTRY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/adapter_info.h"
#include "adapters/alias.h"
#include "adapters/audit.h"
#include "adapters/merge_policy.h"

namespace lorikeet {

class Database;

class Registry {
 public:
  // A row of `adapters`.
  struct Adapter {
    std::string tenant, name;
    std::string uid;
    std::string display_name;
    std::string source_path;
    std::vector<std::pair<std::string, std::string>> labels;
    bool pinned = false;
    std::optional<MergePolicy> merge_policy;  // nullopt = the server's
    uint64_t etag = 0;
    absl::Time create_time, update_time;
  };
  struct Contents {
    std::vector<Adapter> adapters;
    std::vector<AdapterVersionInfo> versions;  // ascending per adapter
    std::vector<Alias> aliases;
  };

  // Opens or creates the file `path` and brings its schema up to date.
  //
  // Errors: DATA_LOSS (reason REGISTRY_DAMAGED); FAILED_PRECONDITION (reason
  // REGISTRY_NEWER) if it was written by a newer version of the program, or
  // (reason STATE_DIR_READ_ONLY); RESOURCE_EXHAUSTED (reason DISK_FULL).
  static absl::StatusOr<std::unique_ptr<Registry>> Open(
      const std::string& path);
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  absl::StatusOr<Contents> ReadAll();
  // Returns entries of the audit trail, newest first.
  absl::StatusOr<std::vector<AuditEntry>> ReadAudit(const AuditQuery& query);

  // Mutations set and return the new etag; no etag is ever used twice. `audit`
  // is written with the change.
  //
  // Errors of all: RESOURCE_EXHAUSTED (reason DISK_FULL), INTERNAL; nothing is
  // changed then.

  // Adds an adapter with its first version. Errors: ALREADY_EXISTS if an
  // adapter or alias has the name.
  absl::StatusOr<uint64_t> CreateAdapter(const Adapter& adapter,
                                         const AdapterVersionInfo& version,
                                         const AuditEntry& audit);
  // Adds a version and changes the adapter's row; removes the versions with the
  // numbers `retired`. Errors: ALREADY_EXISTS if the number is taken;
  // NOT_FOUND.
  absl::StatusOr<uint64_t> AddVersion(const Adapter& adapter,
                                      const AdapterVersionInfo& version,
                                      const std::vector<uint32_t>& retired,
                                      const AuditEntry& audit);
  // Changes what people say of it; not in the trail. Errors: NOT_FOUND.
  absl::StatusOr<uint64_t> UpdateAdapter(const Adapter& adapter);
  // Removes the adapter and its versions; takes them out of the aliases and
  // removes the aliases that have no target left.
  absl::Status DeleteAdapter(const std::string& tenant, const std::string& name,
                             const AuditEntry& audit);
  // Creates or replaces an alias. Errors: ALREADY_EXISTS if an adapter has the
  // name; NOT_FOUND if a target is no version.
  absl::StatusOr<uint64_t> PutAlias(const Alias& alias,
                                    const AuditEntry& audit);
  absl::Status DeleteAlias(const std::string& tenant, const std::string& name,
                           const AuditEntry& audit);
  // Adds an entry alone.
  absl::Status AppendAudit(const AuditEntry& audit);

 private:
  explicit Registry(std::unique_ptr<Database> database);

  const std::unique_ptr<Database> database_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_REGISTRY_H_
