#include "server/frontend/adapter_upload.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/status.h"
#include "base/text.h"
#include "server/frontend/error.h"

namespace lorikeet {

AdapterUpload::AdapterUpload(FileSystem& fs, AdapterStore& store,
                             std::string dir, const PeftLimits& limits)
    : fs_(fs), store_(store), dir_(std::move(dir)) {
  files_[0].name = kAdapterConfigFile;
  files_[0].max_bytes = limits.max_config_bytes;
  files_[1].name = kAdapterModelFile;
  files_[1].max_bytes = limits.max_model_bytes;
  files_[2].name = kGoldenFile;
  files_[2].max_bytes = ContentStore::kMaxGoldenBytes;
  files_[2].is_optional = true;
}

AdapterUpload::~AdapterUpload() {
  for (File& file : files_) file.out.reset();
  store_.RemoveUpload(dir_);
}

AdapterUpload::File* AdapterUpload::Find(absl::string_view name) {
  for (File& file : files_) {
    if (file.name == name) return &file;
  }
  return nullptr;
}

absl::Status AdapterUpload::Add(absl::string_view file_name, uint64_t offset,
                                absl::string_view data, uint32_t crc32c) {
  File* const file = Find(file_name);
  if (file == nullptr) {
    return FieldError(
        "chunk.file_name",
        absl::StrCat(Quote(file_name), " is none of ", kAdapterConfigFile, ", ",
                     kAdapterModelFile, ", ", kGoldenFile));
  }
  if (data.size() > kMaxChunkBytes) {
    return RangeError("chunk.data length", absl::StrCat(data.size()),
                      absl::StrCat("[0, ", kMaxChunkBytes, "] bytes"));
  }
  if (offset != file->size) {
    return FieldError("chunk.offset",
                      absl::StrCat(offset, " of ", file_name, " is not ",
                                   file->size, ", where the last chunk ended"));
  }
  if (data.size() > file->max_bytes - file->size) {
    return FieldError("chunk.data",
                      absl::StrCat("makes ", file_name, " longer than ",
                                   file->max_bytes, " bytes"));
  }
  if (const uint32_t actual = Crc32c(data); actual != crc32c) {
    return WithField(WithReason(absl::DataLossError(absl::StrCat(
                                    "chunk.crc32c ", crc32c, " of ", file_name,
                                    " at offset ", offset,
                                    " does not match its data (", actual, ")")),
                                "CHECKSUM_MISMATCH"),
                     "chunk.crc32c");
  }
  if (file->out == nullptr) {
    ASSIGN_OR_RETURN(file->out, fs_.Create(JoinPath(dir_, file_name)));
  }
  const absl::Status written = file->out->Append(data);
  if (!written.ok()) {
    return absl::IsResourceExhausted(written)
               ? WithDefaultReason(written, "DISK_FULL")
               : written;
  }
  file->size += data.size();
  return absl::OkStatus();
}

absl::Status AdapterUpload::Finish() {
  for (File& file : files_) {
    if (file.out == nullptr) {
      if (file.is_optional) continue;
      return FieldError("chunk", absl::StrCat("of ", file.name, " is missing"),
                        "UPLOAD_INCOMPLETE");
    }
    const absl::Status synced = file.out->Sync();
    if (absl::IsResourceExhausted(synced)) {
      return WithDefaultReason(synced, "DISK_FULL");
    }
    RETURN_IF_ERROR(synced);
    file.out.reset();
  }
  return absl::OkStatus();
}

}  // namespace lorikeet
