#include "adapters/database.h"

#include <sqlite3.h>

#include "absl/strings/str_cat.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

// How long another connection (a backup) may hold the file.
constexpr int kBusyTimeoutMs = 5000;

}  // namespace

Database::~Database() { sqlite3_close_v2(db_); }

absl::Status Database::Open(const std::string& path) {
  // Our mutex serializes.
  const int rc = sqlite3_open_v2(
      path.c_str(), &db_,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
      nullptr);
  if (rc != SQLITE_OK) return Error(rc);
  sqlite3_extended_result_codes(db_, 1);
  sqlite3_busy_timeout(db_, kBusyTimeoutMs);
  // SQLite falls back to reading what it may not write.
  if (sqlite3_db_readonly(db_, "main") == 1) return Error(SQLITE_READONLY);
  RETURN_IF_ERROR(Execute("PRAGMA journal_mode = WAL"));
  RETURN_IF_ERROR(Execute("PRAGMA synchronous = FULL"));
  RETURN_IF_ERROR(Execute("PRAGMA foreign_keys = ON"));
  return Execute("PRAGMA trusted_schema = OFF");
}

absl::Status Database::Error(int rc) const {
  const std::string message = absl::StrCat(
      "registry: ", db_ != nullptr ? sqlite3_errmsg(db_) : sqlite3_errstr(rc));
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
      return WithReason(
          absl::FailedPreconditionError(absl::StrCat(
              "registry.db cannot be written: ", sqlite3_errstr(rc & 0xff))),
          "STATE_DIR_READ_ONLY");
    case SQLITE_BUSY:
      return absl::FailedPreconditionError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::Status Database::Execute(const std::string& sql) {
  const int rc = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  return rc == SQLITE_OK ? absl::OkStatus() : Error(rc);
}

absl::StatusOr<int64_t> Database::ReadInt(const char* sql) {
  Statement statement(*this, sql);
  if (statement.Next()) return statement.Int();
  RETURN_IF_ERROR(statement.status());
  return absl::InternalError(absl::StrCat("registry: no row for ", sql));
}

absl::StatusOr<std::string> Database::ReadText(const char* sql) {
  Statement statement(*this, sql);
  if (statement.Next()) return statement.Text();
  RETURN_IF_ERROR(statement.status());
  return absl::InternalError(absl::StrCat("registry: no row for ", sql));
}

int Database::changes() const { return sqlite3_changes(db_); }

absl::Status Database::InTransaction(absl::FunctionRef<absl::Status()> body) {
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

Statement::Statement(Database& db, const char* sql) : db_(db) {
  rc_ = sqlite3_prepare_v2(db.db_, sql, -1, &stmt_, nullptr);
}

Statement::~Statement() { sqlite3_finalize(stmt_); }

Statement& Statement::Bind(absl::string_view v) {
  if (rc_ == SQLITE_OK) {
    rc_ = sqlite3_bind_text(stmt_, ++bound_, v.data(),
                            static_cast<int>(v.size()), SQLITE_TRANSIENT);
  }
  return *this;
}

Statement& Statement::Bind(int64_t v) {
  if (rc_ == SQLITE_OK) rc_ = sqlite3_bind_int64(stmt_, ++bound_, v);
  return *this;
}

Statement& Statement::Bind(double v) {
  if (rc_ == SQLITE_OK) rc_ = sqlite3_bind_double(stmt_, ++bound_, v);
  return *this;
}

Statement& Statement::BindNull() {
  if (rc_ == SQLITE_OK) rc_ = sqlite3_bind_null(stmt_, ++bound_);
  return *this;
}

absl::Status Statement::Run() {
  Next();
  return status();
}

bool Statement::Next() {
  column_ = 0;
  if (rc_ == SQLITE_OK || rc_ == SQLITE_ROW) rc_ = sqlite3_step(stmt_);
  return rc_ == SQLITE_ROW;
}

absl::Status Statement::status() const {
  const bool ok = rc_ == SQLITE_OK || rc_ == SQLITE_ROW || rc_ == SQLITE_DONE;
  return ok ? absl::OkStatus() : db_.Error(rc_);
}

bool Statement::IsNull() const {
  return sqlite3_column_type(stmt_, column_) == SQLITE_NULL;
}

std::string Statement::Text() {
  const int column = column_++;
  const auto* text = sqlite3_column_text(stmt_, column);
  if (text == nullptr) return "";
  return std::string(reinterpret_cast<const char*>(text),
                     static_cast<size_t>(sqlite3_column_bytes(stmt_, column)));
}

int64_t Statement::Int() { return sqlite3_column_int64(stmt_, column_++); }

double Statement::Double() { return sqlite3_column_double(stmt_, column_++); }

Json Statement::JsonText() {
  absl::StatusOr<Json> json = Json::Parse(Text());
  return json.ok() ? *std::move(json) : Json();
}

}  // namespace lorikeet
