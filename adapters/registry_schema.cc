#include "adapters/registry_schema.h"

#include <iterator>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

// "LorA": marks the file as ours to file(1) and to us.
constexpr int kApplicationId = 0x4c6f7241;

// kMigrations[i] brings schema i to i + 1. Times and durations are
// microseconds, times since 1970; lists are JSON.
constexpr const char* kMigrations[] = {
    R"sql(
      CREATE TABLE adapters (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        uid TEXT NOT NULL,
        display_name TEXT NOT NULL,
        source_path TEXT NOT NULL,
        labels TEXT NOT NULL,
        pinned INTEGER NOT NULL,
        etag INTEGER NOT NULL,
        create_time INTEGER NOT NULL,
        update_time INTEGER NOT NULL,
        PRIMARY KEY (tenant, name)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE versions (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        version INTEGER NOT NULL CHECK (version >= 1),
        digest TEXT NOT NULL,
        base_fingerprint TEXT NOT NULL,
        create_time INTEGER NOT NULL,
        max_rank INTEGER NOT NULL,
        alpha REAL NOT NULL,
        use_rslora INTEGER NOT NULL,
        target_modules TEXT NOT NULL,
        warnings TEXT NOT NULL,
        modules TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        PRIMARY KEY (tenant, name, version),
        FOREIGN KEY (tenant, name) REFERENCES adapters ON DELETE CASCADE
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE aliases (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        target TEXT NOT NULL,
        version INTEGER NOT NULL,
        etag INTEGER NOT NULL,
        PRIMARY KEY (tenant, name),
        FOREIGN KEY (tenant, target, version) REFERENCES versions
          ON DELETE CASCADE
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX aliases_by_target ON aliases (tenant, target, version);
      CREATE TABLE etags (last INTEGER NOT NULL) STRICT;
      INSERT INTO etags VALUES (0);
    )sql",
    // 1 -> 2: splits, shadows, rules; the audit trail.
    R"sql(
      ALTER TABLE aliases RENAME TO aliases_1;
      DROP INDEX aliases_by_target;
      CREATE TABLE aliases (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        etag INTEGER NOT NULL,
        max_error_rate REAL,
        max_latency INTEGER,
        window INTEGER,
        min_requests INTEGER,
        PRIMARY KEY (tenant, name)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE alias_targets (
        tenant TEXT NOT NULL,
        alias TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('serve', 'shadow', 'previous')),
        position INTEGER NOT NULL,
        target TEXT NOT NULL,
        version INTEGER NOT NULL,
        weight INTEGER NOT NULL,
        share REAL NOT NULL,
        PRIMARY KEY (tenant, alias, role, position),
        FOREIGN KEY (tenant, alias) REFERENCES aliases ON DELETE CASCADE,
        FOREIGN KEY (tenant, target, version) REFERENCES versions
          ON DELETE CASCADE
      ) STRICT, WITHOUT ROWID;
      CREATE INDEX alias_targets_by_target
        ON alias_targets (tenant, target, version);
      INSERT INTO aliases
        SELECT tenant, name, etag, NULL, NULL, NULL, NULL FROM aliases_1;
      INSERT INTO alias_targets
        SELECT tenant, name, 'serve', 0, target, version, 1, 0 FROM aliases_1;
      DROP TABLE aliases_1;
      CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time INTEGER NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        old_target TEXT NOT NULL,
        new_target TEXT NOT NULL,
        reason TEXT NOT NULL
      ) STRICT;
      CREATE INDEX audit_by_name ON audit (tenant, name, id);
      CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
      CREATE TRIGGER audit_keeps_values BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
    )sql",
    // 2 -> 3: what a version has beyond plain low-rank parts.
    R"sql(
      ALTER TABLE versions ADD COLUMN features TEXT NOT NULL DEFAULT '{}';
    )sql",
    // 3 -> 4: which variant an adapter's requests get; '' = as the server says.
    R"sql(
      ALTER TABLE adapters ADD COLUMN merge_policy TEXT NOT NULL DEFAULT '';
    )sql",
};
static_assert(std::size(kMigrations) == kRegistrySchema);

absl::Status CheckSound(Database& db) {
  ASSIGN_OR_RETURN(const std::string result,
                   db.ReadText("PRAGMA quick_check(1)"));
  if (result == "ok") return absl::OkStatus();
  return WithReason(absl::DataLossError(
                        absl::StrCat("registry is damaged: ", Escape(result))),
                    "REGISTRY_DAMAGED");
}

absl::Status Migrate(Database& db) {
  ASSIGN_OR_RETURN(const int64_t version, db.ReadInt("PRAGMA user_version"));
  if (version > kRegistrySchema) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "registry has schema ", version, ", this program knows up to ",
            kRegistrySchema, ": it was written by a newer one")),
        "REGISTRY_NEWER");
  }
  for (int64_t v = version; v < kRegistrySchema; ++v) {
    const auto change = [&]() -> absl::Status {
      RETURN_IF_ERROR(db.Execute(kMigrations[v]));
      return db.Execute(absl::StrCat("PRAGMA user_version = ", v + 1));
    };
    RETURN_IF_ERROR(db.InTransaction(change));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status PrepareSchema(Database& db) {
  RETURN_IF_ERROR(CheckSound(db));
  ASSIGN_OR_RETURN(const int64_t id, db.ReadInt("PRAGMA application_id"));
  if (id != 0 && id != kApplicationId) {
    return WithReason(absl::FailedPreconditionError(
                          "registry file belongs to another program"),
                      "REGISTRY_FOREIGN");
  }
  RETURN_IF_ERROR(Migrate(db));
  if (id == kApplicationId) return absl::OkStatus();
  return db.Execute(absl::StrCat("PRAGMA application_id = ", kApplicationId));
}

}  // namespace lorikeet
