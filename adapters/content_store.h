// A ContentStore keeps the two files of each adapter under their digest, and
// beside them its golden.jsonl, if it came with one.
//
//   <dir>/adapters/<digest>/   complete, durable, immutable
//   <dir>/tmp/<random>/        being written
//   <dir>/uploads/<random>/    being received
//   <dir>/quarantine/<digest>/ found damaged; for people to look at
//
// Bytes are copied and fsynced in tmp/ and then renamed, so that a folder under
// adapters/ is whole or not there. Whether somebody knows a digest is the
// registry's business; Sweep removes what nobody knows.
//
// Thread-safe. Blocks on disk.

#ifndef LORIKEET_ADAPTERS_CONTENT_STORE_H_
#define LORIKEET_ADAPTERS_CONTENT_STORE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "adapters/peft_reader.h"
#include "base/digest.h"
#include "base/file_system.h"
#include "base/mutex.h"

namespace lorikeet {

// Optional file of an adapter: prompts with the answers it has to give. Not
// part of the digest: it does not change what the adapter is.
inline constexpr absl::string_view kGoldenFile = "golden.jsonl";

class ContentStore {
 public:
  static constexpr uint64_t kMaxGoldenBytes = 16 << 20;

  // Creates the folders and removes what a killed process left in tmp/ and
  // uploads/.
  static absl::StatusOr<std::unique_ptr<ContentStore>> Open(
      FileSystem& fs, const std::string& dir);

  // A copy in tmp/, removed on destruction unless committed.
  class Staged {
   public:
    Staged(FileSystem& fs, std::string dir) : fs_(fs), dir_(std::move(dir)) {}
    ~Staged();
    Staged(const Staged&) = delete;
    Staged& operator=(const Staged&) = delete;
    const std::string& dir() const { return dir_; }
    const Digest& digest() const { return digest_; }
    uint64_t size_bytes() const { return size_bytes_; }

   private:
    friend class ContentStore;
    FileSystem& fs_;
    const std::string dir_;
    Digest digest_;
    uint64_t size_bytes_ = 0;
  };
  // Copies the files and makes the copy durable; `golden_path` "" = none.
  //
  // Errors: NOT_FOUND, INVALID_ARGUMENT beyond a limit, RESOURCE_EXHAUSTED
  // (reason DISK_FULL).
  absl::StatusOr<std::unique_ptr<Staged>> Stage(const std::string& config_path,
                                                const std::string& model_path,
                                                const std::string& golden_path,
                                                const PeftLimits& limits);
  // Moves `staged` to its place; nothing to do if the content is there and
  // sound.
  absl::Status Commit(const Staged& staged);

  // The folder of a digest, whether it is there or not.
  std::string Path(const Digest& digest) const;
  absl::Status Remove(const Digest& digest);
  enum class Verdict { kSound, kMoved, kMissing };
  // Looks at the files of `digest` again, and moves them to quarantine/ if they
  // are not what they were.
  absl::StatusOr<Verdict> Quarantine(const Digest& digest);
  // Removes every folder whose digest is not in `known`.
  absl::Status Sweep(const absl::flat_hash_set<Digest>& known);

  absl::StatusOr<std::string> NewUploadDir();
  // Nothing happens unless `dir` came from NewUploadDir.
  void RemoveUpload(const std::string& dir);
  bool IsUpload(const std::string& dir) const;

 private:
  ContentStore(FileSystem& fs, const std::string& dir);

  FileSystem& fs_;
  const std::string adapters_dir_;
  const std::string tmp_dir_;
  const std::string uploads_dir_;
  const std::string quarantine_dir_;
  // Between a look at a folder of adapters/ and what follows from it. A leaf:
  // held over I/O, and nothing else is locked under it.
  Mutex mu_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_CONTENT_STORE_H_
