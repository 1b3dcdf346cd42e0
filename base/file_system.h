// A FileSystem is what the program sees of disks; the seam that lets tests
// fail a write at any point. MappedFile is a read-only view of a whole file.
//
// Paths are UTF-8. Errors: NOT_FOUND if there is no such file,
// RESOURCE_EXHAUSTED if the disk is full, PERMISSION_DENIED, else INTERNAL;
// each names the path. Thread-safe.

#ifndef LORIKEET_BASE_FILE_SYSTEM_H_
#define LORIKEET_BASE_FILE_SYSTEM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorikeet {

// The bytes of a file, mapped read-only; they stay valid until destruction.
// Pages are read on first touch, by whoever touches them.
class MappedFile {
 public:
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::string_view bytes() const {
    return absl::string_view(static_cast<const char*>(data_), size_);
  }
  const std::string& path() const { return path_; }

 private:
  friend class PosixFileSystem;
  MappedFile(std::string path, void* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  const std::string path_;
  void* const data_;
  const size_t size_;
};

// A file being written. Nothing of it is promised before Sync.
class WritableFile {
 public:
  virtual ~WritableFile() = default;  // closes
  virtual absl::Status Append(absl::string_view bytes) = 0;
  virtual absl::Status Sync() = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // Returns the content. Errors: also INVALID_ARGUMENT if it is longer than
  // `max_bytes`.
  virtual absl::StatusOr<std::string> ReadFile(const std::string& path,
                                               uint64_t max_bytes) = 0;
  virtual absl::StatusOr<std::unique_ptr<MappedFile>> Map(
      const std::string& path) = 0;
  // Creates the file, or empties it.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> Create(
      const std::string& path) = 0;
  virtual bool FileExists(const std::string& path) = 0;
  virtual bool IsDirectory(const std::string& path) = 0;
  virtual absl::StatusOr<uint64_t> FileSize(const std::string& path) = 0;
  // Returns the names in a directory, sorted, without "." and "..".
  virtual absl::StatusOr<std::vector<std::string>> List(
      const std::string& dir) = 0;
  // Creates `dir` and its parents; no error if it is there.
  virtual absl::Status CreateDirectories(const std::string& dir) = 0;
  // Atomic within one file system.
  virtual absl::Status Rename(const std::string& from,
                              const std::string& to) = 0;
  // Makes the names in `dir` durable.
  virtual absl::Status SyncDirectory(const std::string& dir) = 0;
  virtual absl::Status RemoveFile(const std::string& path) = 0;
  // Removes `dir` with all it holds; no error if it is not there.
  virtual absl::Status RemoveTree(const std::string& dir) = 0;
  // Returns the absolute path without links, "." and "..".
  virtual absl::StatusOr<std::string> Canonical(const std::string& path) = 0;
};

class PosixFileSystem final : public FileSystem {
 public:
  absl::StatusOr<std::string> ReadFile(const std::string& path,
                                       uint64_t max_bytes) override;
  absl::StatusOr<std::unique_ptr<MappedFile>> Map(
      const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(
      const std::string& path) override;
  bool FileExists(const std::string& path) override;
  bool IsDirectory(const std::string& path) override;
  absl::StatusOr<uint64_t> FileSize(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(
      const std::string& dir) override;
  absl::Status CreateDirectories(const std::string& dir) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status SyncDirectory(const std::string& dir) override;
  absl::Status RemoveFile(const std::string& path) override;
  absl::Status RemoveTree(const std::string& dir) override;
  absl::StatusOr<std::string> Canonical(const std::string& path) override;
};

// Returns "`dir`/`name`".
std::string JoinPath(absl::string_view dir, absl::string_view name);

// Writes `bytes` beside `path`, syncs, renames over it and syncs the folder.
absl::Status WriteFileDurably(FileSystem& fs, const std::string& path,
                              absl::string_view bytes);

}  // namespace lorikeet

#endif  // LORIKEET_BASE_FILE_SYSTEM_H_
