// Rows of the registry's tables, to and from our types.

#ifndef LORIKEET_ADAPTERS_REGISTRY_ROWS_H_
#define LORIKEET_ADAPTERS_REGISTRY_ROWS_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "adapters/adapter_info.h"
#include "adapters/alias.h"
#include "adapters/database.h"
#include "adapters/registry.h"

namespace lorikeet {

// Each REQUIRES that the caller holds db.mu.

absl::Status InsertAdapter(Database& db, const Registry::Adapter& adapter);
// Errors: NOT_FOUND.
absl::Status UpdateAdapterRow(Database& db, const Registry::Adapter& adapter);
absl::Status InsertVersion(Database& db, const AdapterVersionInfo& version);
// Replaces the alias and its targets.
absl::Status ReplaceAlias(Database& db, const Alias& alias);
absl::Status InsertAudit(Database& db, const AuditEntry& entry);

// All rows, in the order of their keys.
absl::StatusOr<std::vector<Registry::Adapter>> ReadAdapters(Database& db);
// Errors: DATA_LOSS (reason REGISTRY_DAMAGED) naming the version.
absl::StatusOr<std::vector<AdapterVersionInfo>> ReadVersions(Database& db);
absl::StatusOr<std::vector<Alias>> ReadAliases(Database& db);
// Newest first.
absl::StatusOr<std::vector<AuditEntry>> ReadAuditRows(Database& db,
                                                      const AuditQuery& query);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_REGISTRY_ROWS_H_
