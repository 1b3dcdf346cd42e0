// A FaultFileSystem passes everything on to another one and counts what
// changes the disk; at a chosen count it fails or kills the process, as a full
// disk or a power button would.
//
// Thread-safe.

#ifndef LORIKEET_TESTS_TESTING_FAULT_FILE_SYSTEM_H_
#define LORIKEET_TESTS_TESTING_FAULT_FILE_SYSTEM_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/file_system.h"

namespace lorikeet::testing {

class FaultFileSystem final : public FileSystem {
 public:
  explicit FaultFileSystem(FileSystem& base) : base_(base) {}

  static constexpr int64_t kNever = -1;
  enum class Fault {
    kFailOnce,    // write `at` gives RESOURCE_EXHAUSTED, later ones work
    kFailOnward,  // write `at` and all later ones fail
    kExit,        // the process ends by _exit before write or removal `at`
  };
  // Starts to count anew. Writes are Create, Append, Sync, Rename,
  // SyncDirectory and CreateDirectories; removals count for kExit alone.
  void Arm(Fault fault, int64_t at);
  void Disarm() { Arm(Fault::kFailOnce, kNever); }
  // Writes (with kExit also removals) since Arm.
  int64_t count() const { return count_; }
  // `observer` is called with the path of each write, on the thread that
  // writes. Not while another thread uses this.
  void Observe(std::function<void(const std::string&)> observer) {
    observer_ = std::move(observer);
  }
  // The exit status of kExit.
  static constexpr int kExitStatus = 77;

  absl::StatusOr<std::string> ReadFile(const std::string& path,
                                       uint64_t max_bytes) override {
    return base_.ReadFile(path, max_bytes);
  }
  absl::StatusOr<std::unique_ptr<MappedFile>> Map(
      const std::string& path) override {
    return base_.Map(path);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> Create(
      const std::string& path) override;
  bool FileExists(const std::string& path) override {
    return base_.FileExists(path);
  }
  bool IsDirectory(const std::string& path) override {
    return base_.IsDirectory(path);
  }
  absl::StatusOr<uint64_t> FileSize(const std::string& path) override {
    return base_.FileSize(path);
  }
  absl::StatusOr<std::vector<std::string>> List(
      const std::string& dir) override {
    return base_.List(dir);
  }
  absl::Status CreateDirectories(const std::string& dir) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status SyncDirectory(const std::string& dir) override;
  absl::Status RemoveFile(const std::string& path) override;
  absl::Status RemoveTree(const std::string& dir) override;
  absl::StatusOr<std::string> Canonical(const std::string& path) override {
    return base_.Canonical(path);
  }

  // Called before each write; not OK if it fails.
  absl::Status OnWrite(const std::string& path);

 private:
  void OnRemove();

  FileSystem& base_;
  std::function<void(const std::string&)> observer_;
  std::atomic<Fault> fault_{Fault::kFailOnce};
  std::atomic<int64_t> at_{kNever};
  std::atomic<int64_t> count_{0};
};

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_TESTING_FAULT_FILE_SYSTEM_H_
