// An AdapterUpload receives the files of an adapter in chunks, each checked
// by its CRC-32C, into a private folder that is removed with it.
//
// Files come in any order, the chunks of one file in order without gaps;
// golden.jsonl may be left out.
// Thread-compatible.

#ifndef LORIKEET_SERVER_FRONTEND_ADAPTER_UPLOAD_H_
#define LORIKEET_SERVER_FRONTEND_ADAPTER_UPLOAD_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "adapters/adapter_store.h"
#include "adapters/content_store.h"
#include "adapters/peft_reader.h"
#include "base/file_system.h"

namespace lorikeet {

// Of one chunk. Small enough that many uploads fit into memory.
inline constexpr size_t kMaxChunkBytes = size_t{1} << 20;

class AdapterUpload {
 public:
  // `dir` is a folder of AdapterStore::NewUploadDir.
  AdapterUpload(FileSystem& fs, AdapterStore& store, std::string dir,
                const PeftLimits& limits);
  ~AdapterUpload();
  AdapterUpload(const AdapterUpload&) = delete;
  AdapterUpload& operator=(const AdapterUpload&) = delete;

  // Errors: INVALID_ARGUMENT naming the file, offset or size; DATA_LOSS /
  // CHECKSUM_MISMATCH; RESOURCE_EXHAUSTED / DISK_FULL.
  absl::Status Add(absl::string_view file_name, uint64_t offset,
                   absl::string_view data, uint32_t crc32c);
  // Makes what was received durable.
  // Errors: INVALID_ARGUMENT / UPLOAD_INCOMPLETE naming the missing file.
  absl::Status Finish();

  const std::string& dir() const { return dir_; }

 private:
  struct File {
    absl::string_view name;
    uint64_t max_bytes = 0;
    bool is_optional = false;
    uint64_t size = 0;
    std::unique_ptr<WritableFile> out;
  };
  // Null if the name is none of the three.
  File* Find(absl::string_view name);

  FileSystem& fs_;
  AdapterStore& store_;
  const std::string dir_;
  File files_[3];
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_ADAPTER_UPLOAD_H_
