#include "adapters/registry.h"

#include "absl/strings/str_cat.h"
#include "adapters/database.h"
#include "adapters/registry_rows.h"
#include "adapters/registry_schema.h"
#include "base/mutex.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

constexpr char kFindAdapter[] =
    "SELECT 1 FROM adapters WHERE tenant = ? AND name = ?";
constexpr char kFindAlias[] =
    "SELECT 1 FROM aliases WHERE tenant = ? AND name = ?";

absl::StatusOr<uint64_t> NextEtag(Database& db) {
  RETURN_IF_ERROR(db.Execute("UPDATE etags SET last = last + 1"));
  ASSIGN_OR_RETURN(const int64_t etag, db.ReadInt("SELECT last FROM etags"));
  return static_cast<uint64_t>(etag);
}

absl::Status RefuseTaken(Database& db, const char* sql,
                         const std::string& tenant, const std::string& name,
                         absl::string_view what) {
  Statement find(db, sql);
  const bool is_taken = find.Bind(tenant).Bind(name).Next();
  if (!is_taken) return find.status();
  return WithReason(absl::AlreadyExistsError(
                        absl::StrCat("name ", Quote(name), " belongs to ", what,
                                     " of tenant ", Quote(tenant))),
                    "ADAPTER_EXISTS");
}

// Targets go with their versions; an alias without any goes too.
absl::Status RemoveAimlessAliases(Database& db) {
  return db.Execute(
      "DELETE FROM aliases WHERE NOT EXISTS (SELECT 1 FROM alias_targets t "
      "WHERE t.tenant = aliases.tenant AND t.alias = aliases.name "
      "AND t.role = 'serve')");
}

}  // namespace

Registry::Registry(std::unique_ptr<Database> database)
    : database_(std::move(database)) {}
Registry::~Registry() = default;

absl::StatusOr<std::unique_ptr<Registry>> Registry::Open(
    const std::string& path) {
  auto db = std::make_unique<Database>();
  RETURN_IF_ERROR(db->Open(path));
  RETURN_IF_ERROR(PrepareSchema(*db));
  return std::unique_ptr<Registry>(new Registry(std::move(db)));
}

absl::StatusOr<Registry::Contents> Registry::ReadAll() {
  Database& db = *database_;
  MutexLock lock(&db.mu);
  Contents contents;
  ASSIGN_OR_RETURN(contents.adapters, ReadAdapters(db));
  ASSIGN_OR_RETURN(contents.versions, ReadVersions(db));
  ASSIGN_OR_RETURN(contents.aliases, ReadAliases(db));
  return contents;
}

absl::StatusOr<std::vector<AuditEntry>> Registry::ReadAudit(
    const AuditQuery& query) {
  MutexLock lock(&database_->mu);
  return ReadAuditRows(*database_, query);
}

absl::StatusOr<uint64_t> Registry::CreateAdapter(
    const Adapter& adapter, const AdapterVersionInfo& version,
    const AuditEntry& audit) {
  Database& db = *database_;
  Adapter row = adapter;
  const auto change = [&]() -> absl::Status {
    RETURN_IF_ERROR(
        RefuseTaken(db, kFindAdapter, row.tenant, row.name, "an adapter"));
    RETURN_IF_ERROR(
        RefuseTaken(db, kFindAlias, row.tenant, row.name, "an alias"));
    ASSIGN_OR_RETURN(row.etag, NextEtag(db));
    RETURN_IF_ERROR(InsertAdapter(db, row));
    RETURN_IF_ERROR(InsertVersion(db, version));
    return InsertAudit(db, audit);
  };
  RETURN_IF_ERROR(db.InTransaction(change));
  return row.etag;
}

absl::StatusOr<uint64_t> Registry::AddVersion(
    const Adapter& adapter, const AdapterVersionInfo& version,
    const std::vector<uint32_t>& retired, const AuditEntry& audit) {
  Database& db = *database_;
  Adapter row = adapter;
  const auto change = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(row.etag, NextEtag(db));
    RETURN_IF_ERROR(UpdateAdapterRow(db, row));
    RETURN_IF_ERROR(InsertVersion(db, version));
    for (const uint32_t number : retired) {
      Statement remove(db,
                       "DELETE FROM versions WHERE tenant = ? AND name = ? "
                       "AND version = ?");
      RETURN_IF_ERROR(
          remove.Bind(row.tenant).Bind(row.name).Bind(number).Run());
      AuditEntry entry = audit;
      entry.action = "retire";
      entry.old_target = absl::StrCat(row.name, "@", number);
      entry.new_target.clear();
      RETURN_IF_ERROR(InsertAudit(db, entry));
    }
    return InsertAudit(db, audit);
  };
  RETURN_IF_ERROR(db.InTransaction(change));
  return row.etag;
}

absl::StatusOr<uint64_t> Registry::UpdateAdapter(const Adapter& adapter) {
  Database& db = *database_;
  Adapter row = adapter;
  const auto change = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(row.etag, NextEtag(db));
    return UpdateAdapterRow(db, row);
  };
  RETURN_IF_ERROR(db.InTransaction(change));
  return row.etag;
}

absl::Status Registry::DeleteAdapter(const std::string& tenant,
                                     const std::string& name,
                                     const AuditEntry& audit) {
  Database& db = *database_;
  return db.InTransaction([&]() -> absl::Status {
    Statement remove(db, "DELETE FROM adapters WHERE tenant = ? AND name = ?");
    RETURN_IF_ERROR(remove.Bind(tenant).Bind(name).Run());
    RETURN_IF_ERROR(RemoveAimlessAliases(db));
    return InsertAudit(db, audit);
  });
}

absl::StatusOr<uint64_t> Registry::PutAlias(const Alias& alias,
                                            const AuditEntry& audit) {
  Database& db = *database_;
  Alias row = alias;
  const auto change = [&]() -> absl::Status {
    RETURN_IF_ERROR(
        RefuseTaken(db, kFindAdapter, row.tenant, row.name, "an adapter"));
    ASSIGN_OR_RETURN(row.etag, NextEtag(db));
    RETURN_IF_ERROR(ReplaceAlias(db, row));
    return InsertAudit(db, audit);
  };
  RETURN_IF_ERROR(db.InTransaction(change));
  return row.etag;
}

absl::Status Registry::DeleteAlias(const std::string& tenant,
                                   const std::string& name,
                                   const AuditEntry& audit) {
  Database& db = *database_;
  return db.InTransaction([&]() -> absl::Status {
    Statement remove(db, "DELETE FROM aliases WHERE tenant = ? AND name = ?");
    RETURN_IF_ERROR(remove.Bind(tenant).Bind(name).Run());
    return InsertAudit(db, audit);
  });
}

absl::Status Registry::AppendAudit(const AuditEntry& audit) {
  Database& db = *database_;
  return db.InTransaction([&] { return InsertAudit(db, audit); });
}

}  // namespace lorikeet
