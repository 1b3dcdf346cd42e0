// A StateDir owns the directory in which a server keeps its adapters: it is
// locked against other processes, or private and removed at the end.
//
// Thread-safe.

#ifndef LORIKEET_ADAPTERS_STATE_DIR_H_
#define LORIKEET_ADAPTERS_STATE_DIR_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/file_system.h"

namespace lorikeet {

class StateDir {
 public:
  // Creates and locks `path`; empty = a private directory below $TMPDIR.
  //
  // Errors: FAILED_PRECONDITION (reason STATE_DIR_IN_USE) if another process
  // has it, or (reason STATE_DIR_READ_ONLY) if it cannot be written; those of
  // the file system.
  static absl::StatusOr<std::unique_ptr<StateDir>> Open(
      FileSystem& fs, const std::string& path);
  ~StateDir();
  StateDir(const StateDir&) = delete;
  StateDir& operator=(const StateDir&) = delete;

  const std::string& path() const { return path_; }

 private:
  StateDir(FileSystem& fs, std::string path, bool is_private, int lock)
      : fs_(fs), path_(std::move(path)), is_private_(is_private), lock_(lock) {}

  FileSystem& fs_;
  const std::string path_;
  const bool is_private_;
  const int lock_;  // a descriptor; the lock goes with it
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_STATE_DIR_H_
