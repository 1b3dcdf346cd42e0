// One connection behind a mutex. A mutation is: BEGIN IMMEDIATE, statements,
// COMMIT; on any error ROLLBACK. With WAL and synchronous=FULL the COMMIT has
// fsynced the log when it returns.

#include "adapters/registry.h"

#include <sqlite3.h>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/json.h"
#include "base/mutex.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

// "LorA": marks the file as ours to file(1) and to us.
constexpr int kApplicationId = 0x4c6f7241;

// migrations[i] brings schema i to i + 1. Times are microseconds since 1970,
// lists are JSON.
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
    R"sql(
      ALTER TABLE versions ADD COLUMN features TEXT NOT NULL DEFAULT '{}';
    )sql",
};
static_assert(std::size(kMigrations) == Registry::kSchemaVersion);

Json StringsToJson(const std::vector<std::string>& list) {
  Json json = Json::Array();
  for (const std::string& s : list) json.Append(s);
  return json;
}

std::vector<std::string> StringsFromJson(const Json& json) {
  std::vector<std::string> list;
  if (!json.is_array()) return list;
  for (const Json& item : json.items()) {
    if (item.is_string()) list.push_back(item.AsString());
  }
  return list;
}

Json LabelsToJson(
    const std::vector<std::pair<std::string, std::string>>& labels) {
  Json json = Json::Array();
  for (const auto& [key, value] : labels) {
    Json pair = Json::Array();
    pair.Append(key);
    pair.Append(value);
    json.Append(std::move(pair));
  }
  return json;
}

std::vector<std::pair<std::string, std::string>> LabelsFromJson(
    const Json& json) {
  std::vector<std::pair<std::string, std::string>> labels;
  if (!json.is_array()) return labels;
  for (const Json& item : json.items()) {
    const std::vector<std::string> pair = StringsFromJson(item);
    if (pair.size() == 2) labels.emplace_back(pair[0], pair[1]);
  }
  return labels;
}

Json ModulesToJson(const std::vector<AdapterVersionInfo::Module>& modules) {
  Json json = Json::Array();
  for (const auto& module : modules) {
    Json row = Json::Array();
    row.Append(module.name);
    row.Append(module.rank);
    row.Append(module.scaling);
    json.Append(std::move(row));
  }
  return json;
}

std::vector<AdapterVersionInfo::Module> ModulesFromJson(const Json& json) {
  std::vector<AdapterVersionInfo::Module> modules;
  if (!json.is_array()) return modules;
  for (const Json& item : json.items()) {
    if (!item.is_array() || item.items().size() != 3) continue;
    const std::vector<Json>& row = item.items();
    if (!row[0].is_string() || !row[1].is_int() || !row[2].is_number())
      continue;
    modules.push_back({row[0].AsString(), row[1].AsInt(), row[2].AsDouble()});
  }
  return modules;
}

Json FeaturesToJson(const AdapterFeatures& features) {
  Json json = Json::Object();
  if (features.is_plain()) return json;
  json.Set("keys", StringsToJson(features.keys));
  Json tokens = Json::Array();
  for (const Token t : features.invocation_tokens) tokens.Append(t);
  json.Set("invocation_tokens", std::move(tokens));
  return json;
}

AdapterFeatures FeaturesFromJson(const Json& json) {
  AdapterFeatures features;
  if (!json.is_object()) return features;
  if (const Json* keys = json.Find("keys")) {
    features.keys = StringsFromJson(*keys);
  }
  const Json* tokens = json.Find("invocation_tokens");
  if (tokens == nullptr || !tokens->is_array()) return features;
  for (const Json& token : tokens->items()) {
    if (!token.is_int()) continue;
    features.invocation_tokens.push_back(static_cast<Token>(token.AsInt()));
  }
  return features;
}

}  // namespace

// A connection, and statements that convert our types.
class Registry::Database {
 public:
  ~Database() { sqlite3_close_v2(db_); }

  absl::Status OpenFile(const std::string& path) {
    // Our mutex serializes.
    const int rc = sqlite3_open_v2(
        path.c_str(), &db_,
        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
        nullptr);
    if (rc != SQLITE_OK) return Error(rc);
    sqlite3_extended_result_codes(db_, 1);
    sqlite3_busy_timeout(db_, 5000);
    return absl::OkStatus();
  }

  absl::Status Error(int rc) const {
    const std::string message =
        absl::StrCat("registry: ",
                     db_ != nullptr ? sqlite3_errmsg(db_) : sqlite3_errstr(rc));
    switch (rc & 0xff) {
      case SQLITE_FULL:
        return WithReason(absl::ResourceExhaustedError(message), "DISK_FULL");
      case SQLITE_CORRUPT:
      case SQLITE_NOTADB:
        return WithReason(absl::DataLossError(message), "REGISTRY_DAMAGED");
      case SQLITE_CONSTRAINT:
        return (rc == SQLITE_CONSTRAINT_FOREIGNKEY)
                   ? absl::NotFoundError(message)
                   : absl::AlreadyExistsError(message);
      case SQLITE_READONLY:
      case SQLITE_CANTOPEN:
      case SQLITE_PERM:
        return absl::PermissionDeniedError(message);
      case SQLITE_BUSY:
        return absl::FailedPreconditionError(message);
      default:
        return absl::InternalError(message);
    }
  }

  absl::Status Execute(const std::string& sql) {
    const int rc = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
    return rc == SQLITE_OK ? absl::OkStatus() : Error(rc);
  }

  int changes() const { return sqlite3_changes(db_); }
  sqlite3* handle() const { return db_; }
  Mutex mu;

  // Runs `body` in a transaction.
  absl::Status InTransaction(absl::FunctionRef<absl::Status()> body) {
    MutexLock lock(&mu);
    RETURN_IF_ERROR(Execute("BEGIN IMMEDIATE"));
    absl::Status status = body();
    if (status.ok()) status = Execute("COMMIT");
    // SQLite may have rolled back by itself (a full disk).
    if (!status.ok() && sqlite3_get_autocommit(db_) == 0) {
      Execute("ROLLBACK").IgnoreError();
    }
    return status;
  }

 private:
  sqlite3* db_ = nullptr;
};

namespace {

// A prepared statement; parameters are bound in order.
class Statement {
 public:
  template <typename Database>
  Statement(Database& db, const char* sql) {
    rc_ = sqlite3_prepare_v2(db.handle(), sql, -1, &stmt_, nullptr);
  }
  ~Statement() { sqlite3_finalize(stmt_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& Bind(absl::string_view v) {
    if (rc_ == SQLITE_OK) {
      rc_ = sqlite3_bind_text(stmt_, ++bound_, v.data(),
                              static_cast<int>(v.size()), SQLITE_TRANSIENT);
    }
    return *this;
  }
  Statement& Bind(int64_t v) {
    if (rc_ == SQLITE_OK) rc_ = sqlite3_bind_int64(stmt_, ++bound_, v);
    return *this;
  }
  Statement& Bind(double v) {
    if (rc_ == SQLITE_OK) rc_ = sqlite3_bind_double(stmt_, ++bound_, v);
    return *this;
  }
  Statement& Bind(absl::Time v) { return Bind(absl::ToUnixMicros(v)); }
  Statement& Bind(uint64_t v) { return Bind(static_cast<int64_t>(v)); }

  // SQLITE_ROW, SQLITE_DONE or an error.
  int Step() {
    if (rc_ != SQLITE_OK) return rc_;
    return sqlite3_step(stmt_);
  }
  template <typename Database>
  absl::Status Run(Database& db) {
    const int rc = Step();
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? absl::OkStatus()
                                                 : db.Error(rc);
  }

  std::string Text() {
    const int column = column_++;
    const auto* text = sqlite3_column_text(stmt_, column);
    if (text == nullptr) return "";
    return std::string(
        reinterpret_cast<const char*>(text),
        static_cast<size_t>(sqlite3_column_bytes(stmt_, column)));
  }
  int64_t Int() { return sqlite3_column_int64(stmt_, column_++); }
  double Double() { return sqlite3_column_double(stmt_, column_++); }
  absl::Time Time() { return absl::FromUnixMicros(Int()); }
  // Text that we wrote as JSON; null if somebody else wrote it.
  Json JsonText() {
    absl::StatusOr<Json> json = Json::Parse(Text());
    return json.ok() ? *std::move(json) : Json();
  }
  void NextRow() { column_ = 0; }

 private:
  sqlite3_stmt* stmt_ = nullptr;
  int rc_ = SQLITE_OK;
  int bound_ = 0;
  int column_ = 0;
};

template <typename Database>
absl::StatusOr<int64_t> ReadInt(Database& db, const char* sql) {
  Statement statement(db, sql);
  const int rc = statement.Step();
  if (rc != SQLITE_ROW) return db.Error(rc);
  return statement.Int();
}

template <typename Database>
absl::StatusOr<uint64_t> NextEtag(Database& db) {
  RETURN_IF_ERROR(db.Execute("UPDATE etags SET last = last + 1"));
  ASSIGN_OR_RETURN(const int64_t etag, ReadInt(db, "SELECT last FROM etags"));
  return static_cast<uint64_t>(etag);
}

template <typename Database>
absl::StatusOr<bool> Exists(Database& db, const char* sql,
                            const std::string& tenant,
                            const std::string& name) {
  Statement statement(db, sql);
  const int rc = statement.Bind(tenant).Bind(name).Step();
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) return db.Error(rc);
  return rc == SQLITE_ROW;
}

template <typename Database>
absl::Status RefuseTaken(Database& db, const char* sql,
                         const std::string& tenant, const std::string& name,
                         absl::string_view what) {
  ASSIGN_OR_RETURN(const bool taken, Exists(db, sql, tenant, name));
  if (!taken) return absl::OkStatus();
  return WithReason(absl::AlreadyExistsError(
                        absl::StrCat("name ", Quote(name), " belongs to ", what,
                                     " of tenant ", Quote(tenant))),
                    "ADAPTER_EXISTS");
}

constexpr char kFindAdapter[] =
    "SELECT 1 FROM adapters WHERE tenant = ? AND name = ?";
constexpr char kFindAlias[] =
    "SELECT 1 FROM aliases WHERE tenant = ? AND name = ?";

template <typename Database>
absl::Status InsertVersion(Database& db, const AdapterVersionInfo& v) {
  Statement insert(db,
                   "INSERT INTO versions VALUES "
                   "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  return insert.Bind(v.key.tenant)
      .Bind(v.key.name)
      .Bind(static_cast<int64_t>(v.key.version))
      .Bind(v.key.digest.ToHex())
      .Bind(v.base_fingerprint.ToHex())
      .Bind(v.create_time)
      .Bind(v.max_rank)
      .Bind(v.alpha)
      .Bind(static_cast<int64_t>(v.use_rslora))
      .Bind(StringsToJson(v.target_modules).Dump())
      .Bind(StringsToJson(v.warnings).Dump())
      .Bind(ModulesToJson(v.modules).Dump())
      .Bind(v.size_bytes)
      .Bind(FeaturesToJson(v.features).Dump())
      .Run(db);
}

template <typename Database>
absl::Status UpdateRow(Database& db, const Registry::Adapter& a,
                       uint64_t etag) {
  Statement update(db,
                   "UPDATE adapters SET display_name = ?, source_path = ?, "
                   "labels = ?, pinned = ?, etag = ?, update_time = ? "
                   "WHERE tenant = ? AND name = ?");
  RETURN_IF_ERROR(update.Bind(a.display_name)
                      .Bind(a.source_path)
                      .Bind(LabelsToJson(a.labels).Dump())
                      .Bind(static_cast<int64_t>(a.pinned))
                      .Bind(etag)
                      .Bind(a.update_time)
                      .Bind(a.tenant)
                      .Bind(a.name)
                      .Run(db));
  if (db.changes() == 1) return absl::OkStatus();
  return WithReason(absl::NotFoundError(absl::StrCat(
                        "adapter ", Quote(a.name), " of tenant ",
                        Quote(a.tenant), " is not in the registry")),
                    "ADAPTER_NOT_FOUND");
}

template <typename Database>
absl::Status Migrate(Database& db) {
  ASSIGN_OR_RETURN(const int64_t version, ReadInt(db, "PRAGMA user_version"));
  if (version > Registry::kSchemaVersion) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "registry has schema ", version, ", this program knows up to ",
            Registry::kSchemaVersion, ": it was written by a newer one")),
        "REGISTRY_NEWER");
  }
  for (int64_t v = version; v < Registry::kSchemaVersion; ++v) {
    const auto change = [&]() -> absl::Status {
      RETURN_IF_ERROR(db.Execute(kMigrations[v]));
      return db.Execute(absl::StrCat("PRAGMA user_version = ", v + 1));
    };
    RETURN_IF_ERROR(db.InTransaction(change));
  }
  return absl::OkStatus();
}

}  // namespace

Registry::Registry(std::unique_ptr<Database> database)
    : database_(std::move(database)) {}
Registry::~Registry() = default;

absl::StatusOr<std::unique_ptr<Registry>> Registry::Open(
    const std::string& path) {
  auto db = std::make_unique<Database>();
  RETURN_IF_ERROR(db->OpenFile(path));
  RETURN_IF_ERROR(db->Execute("PRAGMA journal_mode = WAL"));
  RETURN_IF_ERROR(db->Execute("PRAGMA synchronous = FULL"));
  RETURN_IF_ERROR(db->Execute("PRAGMA foreign_keys = ON"));
  RETURN_IF_ERROR(db->Execute("PRAGMA trusted_schema = OFF"));
  {
    Statement check(*db, "PRAGMA quick_check(1)");
    const int rc = check.Step();
    if (rc != SQLITE_ROW) return db->Error(rc);
    const std::string result = check.Text();
    if (result != "ok") {
      return WithReason(absl::DataLossError(absl::StrCat(
                            "registry is damaged: ", Escape(result))),
                        "REGISTRY_DAMAGED");
    }
  }
  ASSIGN_OR_RETURN(const int64_t id, ReadInt(*db, "PRAGMA application_id"));
  if (id != 0 && id != kApplicationId) {
    return absl::FailedPreconditionError(
        "registry file belongs to another program");
  }
  RETURN_IF_ERROR(Migrate(*db));
  if (id == 0) {
    RETURN_IF_ERROR(
        db->Execute(absl::StrCat("PRAGMA application_id = ", kApplicationId)));
  }
  return std::unique_ptr<Registry>(new Registry(std::move(db)));
}

absl::StatusOr<Registry::Contents> Registry::ReadAll() {
  Database& db = *database_;
  MutexLock lock(&db.mu);
  Contents contents;
  int rc;
  Statement adapters(db,
                     "SELECT tenant, name, uid, display_name, source_path, "
                     "labels, pinned, etag, create_time, update_time "
                     "FROM adapters ORDER BY tenant, name");
  while ((rc = adapters.Step()) == SQLITE_ROW) {
    adapters.NextRow();
    Adapter a;
    a.tenant = adapters.Text();
    a.name = adapters.Text();
    a.uid = adapters.Text();
    a.display_name = adapters.Text();
    a.source_path = adapters.Text();
    a.labels = LabelsFromJson(adapters.JsonText());
    a.pinned = adapters.Int() != 0;
    a.etag = static_cast<uint64_t>(adapters.Int());
    a.create_time = adapters.Time();
    a.update_time = adapters.Time();
    contents.adapters.push_back(std::move(a));
  }
  if (rc != SQLITE_DONE) return db.Error(rc);

  Statement versions(db,
                     "SELECT tenant, name, version, digest, base_fingerprint, "
                     "create_time, max_rank, alpha, use_rslora, "
                     "target_modules, warnings, modules, size_bytes, features "
                     "FROM versions ORDER BY tenant, name, version");
  while ((rc = versions.Step()) == SQLITE_ROW) {
    versions.NextRow();
    AdapterVersionInfo v;
    v.key.tenant = versions.Text();
    v.key.name = versions.Text();
    v.key.version = static_cast<uint32_t>(versions.Int());
    const absl::StatusOr<Digest> digest = Digest::FromHex(versions.Text());
    const absl::StatusOr<Digest> base = Digest::FromHex(versions.Text());
    if (!digest.ok() || !base.ok()) {
      return WithReason(absl::DataLossError(absl::StrCat(
                            "registry: version ", Escape(v.key.ToString()),
                            " has no valid digest")),
                        "REGISTRY_DAMAGED");
    }
    v.key.digest = *digest;
    v.base_fingerprint = *base;
    v.create_time = versions.Time();
    v.max_rank = versions.Int();
    v.alpha = versions.Double();
    v.use_rslora = versions.Int() != 0;
    v.target_modules = StringsFromJson(versions.JsonText());
    v.warnings = StringsFromJson(versions.JsonText());
    v.modules = ModulesFromJson(versions.JsonText());
    v.size_bytes = versions.Int();
    v.features = FeaturesFromJson(versions.JsonText());
    contents.versions.push_back(std::move(v));
  }
  if (rc != SQLITE_DONE) return db.Error(rc);

  Statement aliases(db,
                    "SELECT tenant, name, target, version, etag FROM aliases "
                    "ORDER BY tenant, name");
  while ((rc = aliases.Step()) == SQLITE_ROW) {
    aliases.NextRow();
    Alias a;
    a.tenant = aliases.Text();
    a.name = aliases.Text();
    a.target = aliases.Text();
    a.version = static_cast<uint32_t>(aliases.Int());
    a.etag = static_cast<uint64_t>(aliases.Int());
    contents.aliases.push_back(std::move(a));
  }
  if (rc != SQLITE_DONE) return db.Error(rc);
  return contents;
}

absl::StatusOr<uint64_t> Registry::CreateAdapter(
    const Adapter& a, const AdapterVersionInfo& version) {
  Database& db = *database_;
  uint64_t etag = 0;
  const auto change = [&]() -> absl::Status {
    RETURN_IF_ERROR(
        RefuseTaken(db, kFindAdapter, a.tenant, a.name, "an adapter"));
    RETURN_IF_ERROR(RefuseTaken(db, kFindAlias, a.tenant, a.name, "an alias"));
    ASSIGN_OR_RETURN(etag, NextEtag(db));
    Statement insert(
        db, "INSERT INTO adapters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    RETURN_IF_ERROR(insert.Bind(a.tenant)
                        .Bind(a.name)
                        .Bind(a.uid)
                        .Bind(a.display_name)
                        .Bind(a.source_path)
                        .Bind(LabelsToJson(a.labels).Dump())
                        .Bind(static_cast<int64_t>(a.pinned))
                        .Bind(etag)
                        .Bind(a.create_time)
                        .Bind(a.update_time)
                        .Run(db));
    return InsertVersion(db, version);
  };
  RETURN_IF_ERROR(db.InTransaction(change));
  return etag;
}

absl::StatusOr<uint64_t> Registry::AddVersion(
    const Adapter& a, const AdapterVersionInfo& version) {
  Database& db = *database_;
  uint64_t etag = 0;
  const auto change = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(etag, NextEtag(db));
    RETURN_IF_ERROR(UpdateRow(db, a, etag));
    return InsertVersion(db, version);
  };
  RETURN_IF_ERROR(db.InTransaction(change));
  return etag;
}

absl::StatusOr<uint64_t> Registry::UpdateAdapter(const Adapter& a) {
  Database& db = *database_;
  uint64_t etag = 0;
  const auto change = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(etag, NextEtag(db));
    return UpdateRow(db, a, etag);
  };
  RETURN_IF_ERROR(db.InTransaction(change));
  return etag;
}

absl::Status Registry::DeleteAdapter(const std::string& tenant,
                                     const std::string& name) {
  Database& db = *database_;
  return db.InTransaction([&]() -> absl::Status {
    Statement remove(db, "DELETE FROM adapters WHERE tenant = ? AND name = ?");
    return remove.Bind(tenant).Bind(name).Run(db);
  });
}

absl::StatusOr<uint64_t> Registry::PutAlias(const Alias& a) {
  Database& db = *database_;
  uint64_t etag = 0;
  const auto change = [&]() -> absl::Status {
    RETURN_IF_ERROR(
        RefuseTaken(db, kFindAdapter, a.tenant, a.name, "an adapter"));
    ASSIGN_OR_RETURN(etag, NextEtag(db));
    Statement put(db, "INSERT OR REPLACE INTO aliases VALUES (?, ?, ?, ?, ?)");
    return put.Bind(a.tenant)
        .Bind(a.name)
        .Bind(a.target)
        .Bind(static_cast<int64_t>(a.version))
        .Bind(etag)
        .Run(db);
  };
  RETURN_IF_ERROR(db.InTransaction(change));
  return etag;
}

absl::Status Registry::DeleteAlias(const std::string& tenant,
                                   const std::string& name) {
  Database& db = *database_;
  return db.InTransaction([&]() -> absl::Status {
    Statement remove(db, "DELETE FROM aliases WHERE tenant = ? AND name = ?");
    return remove.Bind(tenant).Bind(name).Run(db);
  });
}

}  // namespace lorikeet
