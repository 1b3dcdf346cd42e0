// The schema of the registry and its history. docs/formats/registry.md has the
// tables.

#ifndef LORIKEET_ADAPTERS_REGISTRY_SCHEMA_H_
#define LORIKEET_ADAPTERS_REGISTRY_SCHEMA_H_

#include "absl/status/status.h"
#include "adapters/database.h"

namespace lorikeet {

// The schema that this program writes; files of older ones are migrated.
inline constexpr int kRegistrySchema = 4;

// Checks that `db` is sound and ours and brings its schema up to date, one
// transaction a step.
//
// Errors: DATA_LOSS (reason REGISTRY_DAMAGED); FAILED_PRECONDITION (reason
// REGISTRY_NEWER naming both numbers, or REGISTRY_FOREIGN).
absl::Status PrepareSchema(Database& db);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_REGISTRY_SCHEMA_H_
