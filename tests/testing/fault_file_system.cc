#include "tests/testing/fault_file_system.h"

#include <unistd.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace lorikeet::testing {
namespace {

class FaultFile final : public WritableFile {
 public:
  FaultFile(FaultFileSystem& fs, std::string path,
            std::unique_ptr<WritableFile> base)
      : fs_(fs), path_(std::move(path)), base_(std::move(base)) {}

  absl::Status Append(absl::string_view bytes) override {
    const absl::Status status = fs_.OnWrite(path_);
    if (status.ok()) return base_->Append(bytes);
    // A full disk takes a part.
    base_->Append(bytes.substr(0, bytes.size() / 2)).IgnoreError();
    return status;
  }
  absl::Status Sync() override {
    RETURN_IF_ERROR(fs_.OnWrite(path_));
    return base_->Sync();
  }

 private:
  FaultFileSystem& fs_;
  const std::string path_;
  const std::unique_ptr<WritableFile> base_;
};

}  // namespace

void FaultFileSystem::Arm(Fault fault, int64_t at) {
  fault_ = fault;
  at_ = at;
  count_ = 0;
}

absl::Status FaultFileSystem::OnWrite(const std::string& path) {
  if (observer_) observer_(path);
  const int64_t index = count_++;
  if (at_ == kNever || index < at_) return absl::OkStatus();
  if (index > at_ && fault_ == Fault::kFailOnce) return absl::OkStatus();
  if (fault_ == Fault::kExit) ::_exit(kExitStatus);
  return absl::ResourceExhaustedError(
      absl::StrCat(path, ": No space left on device"));
}

void FaultFileSystem::OnRemove() {
  if (fault_ != Fault::kExit) return;
  const int64_t index = count_++;
  if (at_ != kNever && index >= at_) ::_exit(kExitStatus);
}

absl::StatusOr<std::unique_ptr<WritableFile>> FaultFileSystem::Create(
    const std::string& path) {
  RETURN_IF_ERROR(OnWrite(path));
  ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, base_.Create(path));
  return std::unique_ptr<WritableFile>(
      std::make_unique<FaultFile>(*this, path, std::move(file)));
}

absl::Status FaultFileSystem::CreateDirectories(const std::string& dir) {
  RETURN_IF_ERROR(OnWrite(dir));
  return base_.CreateDirectories(dir);
}

absl::Status FaultFileSystem::Rename(const std::string& from,
                                     const std::string& to) {
  RETURN_IF_ERROR(OnWrite(to));
  return base_.Rename(from, to);
}

absl::Status FaultFileSystem::SyncDirectory(const std::string& dir) {
  RETURN_IF_ERROR(OnWrite(dir));
  return base_.SyncDirectory(dir);
}

absl::Status FaultFileSystem::RemoveFile(const std::string& path) {
  OnRemove();
  return base_.RemoveFile(path);
}

absl::Status FaultFileSystem::RemoveTree(const std::string& dir) {
  OnRemove();
  return base_.RemoveTree(dir);
}

}  // namespace lorikeet::testing
