// A Database is one SQLite file behind a mutex, and a Statement one prepared
// statement: what the registry needs of the library, which no other file sees.
//
// A transaction is: BEGIN IMMEDIATE, statements, COMMIT; on any error ROLLBACK.
// With WAL and synchronous=FULL the COMMIT has fsynced the log when it returns.
//
// Thread-safe where it says so, else the caller holds `mu`.

#ifndef LORIKEET_ADAPTERS_DATABASE_H_
#define LORIKEET_ADAPTERS_DATABASE_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/json.h"
#include "base/mutex.h"

struct sqlite3;
struct sqlite3_stmt;

namespace lorikeet {

class Database {
 public:
  Database() = default;
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // Opens or creates the file and sets it up.
  // Errors: FAILED_PRECONDITION (reason STATE_DIR_READ_ONLY); and of Error.
  absl::Status Open(const std::string& path);
  // Returns what an SQLite result code means. Codes: RESOURCE_EXHAUSTED (reason
  // DISK_FULL), DATA_LOSS (reason REGISTRY_DAMAGED), FAILED_PRECONDITION
  // (reason STATE_DIR_READ_ONLY), NOT_FOUND for a foreign key, ALREADY_EXISTS
  // for another constraint, else INTERNAL.
  absl::Status Error(int rc) const;
  absl::Status Execute(const std::string& sql);
  // The first column of the first row.
  absl::StatusOr<int64_t> ReadInt(const char* sql);
  absl::StatusOr<std::string> ReadText(const char* sql);
  // Rows that the last statement changed.
  int changes() const;
  // Runs `body` in a transaction. Thread-safe.
  absl::Status InTransaction(absl::FunctionRef<absl::Status()> body);

  Mutex mu;

 private:
  friend class Statement;
  sqlite3* db_ = nullptr;
};

// Parameters are bound in order, columns read in order.
class Statement {
 public:
  Statement(Database& db, const char* sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& Bind(absl::string_view v);
  Statement& Bind(const std::string& v) { return Bind(absl::string_view(v)); }
  Statement& Bind(const char* v) { return Bind(absl::string_view(v)); }
  Statement& Bind(int64_t v);
  Statement& Bind(double v);
  Statement& Bind(absl::Time v) { return Bind(absl::ToUnixMicros(v)); }
  Statement& Bind(uint64_t v) { return Bind(static_cast<int64_t>(v)); }
  Statement& Bind(uint32_t v) { return Bind(static_cast<int64_t>(v)); }
  Statement& Bind(bool v) { return Bind(static_cast<int64_t>(v)); }
  Statement& BindNull();

  // For statements without rows.
  absl::Status Run();
  // Goes to the next row; false after the last. Then ask status().
  bool Next();
  absl::Status status() const;

  bool IsNull() const;  // the next column
  std::string Text();
  int64_t Int();
  double Double();
  absl::Time Time() { return absl::FromUnixMicros(Int()); }
  // Text that we wrote as JSON; null if somebody else wrote it.
  Json JsonText();
  void Skip() { ++column_; }

 private:
  Database& db_;
  sqlite3_stmt* stmt_ = nullptr;
  int rc_ = 0;  // of the last call
  int bound_ = 0;
  int column_ = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_DATABASE_H_
