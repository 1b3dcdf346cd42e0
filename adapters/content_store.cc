#include "adapters/content_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/log.h"
#include "base/random.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

// Large enough to be fast, small enough that a full disk is seen early.
constexpr size_t kWriteBytes = 4 << 20;

std::string RandomName() {
  return absl::StrFormat("%016x%016x", RandomSeed(), RandomSeed());
}

absl::Status DiskReason(const absl::Status& status) {
  return status.code() == absl::StatusCode::kResourceExhausted
             ? WithDefaultReason(status, "DISK_FULL")
             : status;
}

// Reads a file that may change under us: no mapping, so no SIGBUS.
absl::StatusOr<std::string> ReadSource(FileSystem& fs, const std::string& path,
                                       absl::string_view name,
                                       uint64_t max_bytes) {
  absl::StatusOr<std::string> bytes = fs.ReadFile(path, max_bytes);
  if (bytes.ok()) return bytes;
  const absl::Status& status = bytes.status();
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return absl::NotFoundError(absl::StrCat(name, " is missing"));
    case absl::StatusCode::kPermissionDenied:
      return absl::PermissionDeniedError(
          absl::StrCat(name, " is not readable"));
    case absl::StatusCode::kInvalidArgument:
      return absl::InvalidArgumentError(absl::StrCat(
          name, " is not a regular file of at most ", max_bytes, " bytes"));
    default:
      return Annotate(status, name);
  }
}

absl::Status WriteDurably(FileSystem& fs, const std::string& path,
                          absl::string_view bytes) {
  ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, fs.Create(path));
  while (!bytes.empty()) {
    const absl::string_view piece =
        bytes.substr(0, std::min(bytes.size(), kWriteBytes));
    RETURN_IF_ERROR(file->Append(piece));
    bytes.remove_prefix(piece.size());
  }
  return file->Sync();
}

absl::Status Empty(FileSystem& fs, const std::string& dir) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, fs.List(dir));
  for (const std::string& name : names) {
    RETURN_IF_ERROR(fs.RemoveTree(JoinPath(dir, name)));
  }
  return absl::OkStatus();
}

}  // namespace

ContentStore::Staged::~Staged() {
  // After a commit the folder has moved, and there is nothing to remove.
  const absl::Status status = fs_.RemoveTree(dir_);
  if (!status.ok()) {
    Log(LogLevel::kWarning, "temporary folder stays until the next start",
        {{"error", std::string(status.message())}});
  }
}

ContentStore::ContentStore(FileSystem& fs, const std::string& dir)
    : fs_(fs),
      adapters_dir_(JoinPath(dir, "adapters")),
      tmp_dir_(JoinPath(dir, "tmp")),
      uploads_dir_(JoinPath(dir, "uploads")),
      quarantine_dir_(JoinPath(dir, "quarantine")) {}

absl::StatusOr<std::unique_ptr<ContentStore>> ContentStore::Open(
    FileSystem& fs, const std::string& dir) {
  std::unique_ptr<ContentStore> store(new ContentStore(fs, dir));
  for (const std::string* folder :
       {&store->adapters_dir_, &store->tmp_dir_, &store->uploads_dir_}) {
    RETURN_IF_ERROR(DiskReason(fs.CreateDirectories(*folder)));
  }
  RETURN_IF_ERROR(DiskReason(fs.SyncDirectory(dir)));
  RETURN_IF_ERROR(Empty(fs, store->tmp_dir_));
  RETURN_IF_ERROR(Empty(fs, store->uploads_dir_));
  return store;
}

absl::StatusOr<std::unique_ptr<ContentStore::Staged>> ContentStore::Stage(
    const std::string& config_path, const std::string& model_path,
    const std::string& golden_path, const PeftLimits& limits) {
  auto staged = std::make_unique<Staged>(fs_, JoinPath(tmp_dir_, RandomName()));
  ASSIGN_OR_RETURN(const std::string config,
                   ReadSource(fs_, config_path, kAdapterConfigFile,
                              limits.max_config_bytes));
  ASSIGN_OR_RETURN(
      const std::string model,
      ReadSource(fs_, model_path, kAdapterModelFile, limits.max_model_bytes));
  std::string golden;
  if (!golden_path.empty()) {
    ASSIGN_OR_RETURN(
        golden, ReadSource(fs_, golden_path, kGoldenFile, kMaxGoldenBytes));
  }
  staged->digest_ = DigestOfAdapterFiles(config, model);
  staged->size_bytes_ = config.size() + model.size();
  const auto write = [&]() -> absl::Status {
    RETURN_IF_ERROR(fs_.CreateDirectories(staged->dir()));
    RETURN_IF_ERROR(
        WriteDurably(fs_, JoinPath(staged->dir(), kAdapterConfigFile), config));
    RETURN_IF_ERROR(
        WriteDurably(fs_, JoinPath(staged->dir(), kAdapterModelFile), model));
    if (!golden_path.empty()) {
      RETURN_IF_ERROR(
          WriteDurably(fs_, JoinPath(staged->dir(), kGoldenFile), golden));
    }
    return fs_.SyncDirectory(staged->dir());
  };
  RETURN_IF_ERROR(DiskReason(write()));
  return staged;
}

absl::Status ContentStore::Commit(const Staged& staged) {
  const std::string path = Path(staged.digest());
  MutexLock lock(&mu_);
  if (fs_.FileExists(path)) {
    // Bytes that are there already are used only if they are right.
    absl::StatusOr<Digest> found = DigestOfAdapter(fs_, path, PeftLimits());
    if (found.ok() && *found == staged.digest()) return absl::OkStatus();
    RETURN_IF_ERROR(fs_.RemoveTree(path));
  }
  RETURN_IF_ERROR(DiskReason(fs_.Rename(staged.dir(), path)));
  return DiskReason(fs_.SyncDirectory(adapters_dir_));
}

std::string ContentStore::Path(const Digest& digest) const {
  return JoinPath(adapters_dir_, digest.ToHex());
}

absl::Status ContentStore::Remove(const Digest& digest) {
  MutexLock lock(&mu_);
  RETURN_IF_ERROR(fs_.RemoveTree(Path(digest)));
  return fs_.SyncDirectory(adapters_dir_);
}

absl::StatusOr<ContentStore::Verdict> ContentStore::Quarantine(
    const Digest& digest) {
  const std::string path = Path(digest);
  MutexLock lock(&mu_);
  if (!fs_.FileExists(path)) return Verdict::kMissing;
  const absl::StatusOr<Digest> found = DigestOfAdapter(fs_, path, PeftLimits());
  if (found.ok() && *found == digest) return Verdict::kSound;
  const std::string place = JoinPath(quarantine_dir_, digest.ToHex());
  RETURN_IF_ERROR(fs_.CreateDirectories(quarantine_dir_));
  // Damaged before, repaired, and damaged again: the last one is kept.
  RETURN_IF_ERROR(fs_.RemoveTree(place));
  RETURN_IF_ERROR(fs_.Rename(path, place));
  RETURN_IF_ERROR(fs_.SyncDirectory(adapters_dir_));
  RETURN_IF_ERROR(fs_.SyncDirectory(quarantine_dir_));
  return Verdict::kMoved;
}

absl::Status ContentStore::Sweep(const absl::flat_hash_set<Digest>& known) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names,
                   fs_.List(adapters_dir_));
  for (const std::string& name : names) {
    const absl::StatusOr<Digest> digest = Digest::FromHex(name);
    // What is no digest is not ours; leave it.
    if (!digest.ok() || known.contains(*digest)) continue;
    RETURN_IF_ERROR(fs_.RemoveTree(JoinPath(adapters_dir_, name)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ContentStore::NewUploadDir() {
  const std::string dir = JoinPath(uploads_dir_, RandomName());
  RETURN_IF_ERROR(DiskReason(fs_.CreateDirectories(dir)));
  return dir;
}

bool ContentStore::IsUpload(const std::string& dir) const {
  const size_t slash = dir.rfind('/');
  return slash != std::string::npos && dir.substr(0, slash) == uploads_dir_ &&
         slash + 1 < dir.size() && dir[slash + 1] != '.';
}

void ContentStore::RemoveUpload(const std::string& dir) {
  if (IsUpload(dir)) fs_.RemoveTree(dir).IgnoreError();
}

}  // namespace lorikeet
