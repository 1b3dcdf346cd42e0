#include "model/safetensors_writer.h"

#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/json.h"
#include "base/status.h"

namespace lorikeet {
namespace {

// The data begins at a multiple of this, so that views of it are aligned.
constexpr size_t kAlignment = 8;

std::string Header(const std::vector<SafetensorsWriter::Tensor>& tensors) {
  Json metadata = Json::Object();
  metadata.Set("format", "pt");
  Json header = Json::Object();
  header.Set("__metadata__", std::move(metadata));
  uint64_t offset = 0;
  for (const SafetensorsWriter::Tensor& tensor : tensors) {
    Json shape = Json::Array();
    for (const int64_t dim : tensor.shape) shape.Append(dim);
    Json offsets = Json::Array();
    offsets.Append(static_cast<int64_t>(offset));
    offset += tensor.size_bytes;
    offsets.Append(static_cast<int64_t>(offset));
    Json entry = Json::Object();
    entry.Set("dtype", tensor.dtype);
    entry.Set("shape", std::move(shape));
    entry.Set("data_offsets", std::move(offsets));
    header.Set(tensor.name, std::move(entry));
  }
  std::string text = header.Dump();
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    FileSystem& fs, const std::string& path,
    const std::vector<Tensor>& tensors) {
  ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, fs.Create(path));
  const std::string header = Header(tensors);
  const uint64_t size = header.size();
  char length[8];
  for (int i = 0; i < 8; ++i) {
    length[i] = static_cast<char>((size >> (8 * i)) & 0xff);
  }
  RETURN_IF_ERROR(file->Append(absl::string_view(length, sizeof(length))));
  RETURN_IF_ERROR(file->Append(header));
  uint64_t bytes = 0;
  for (const Tensor& tensor : tensors) bytes += tensor.size_bytes;
  return std::unique_ptr<SafetensorsWriter>(
      new SafetensorsWriter(std::move(file), bytes));
}

absl::Status SafetensorsWriter::Append(absl::string_view bytes) {
  CHECK_LE(bytes.size(), bytes_left_);
  bytes_left_ -= bytes.size();
  return file_->Append(bytes);
}

absl::Status SafetensorsWriter::Finish() {
  CHECK_EQ(bytes_left_, uint64_t{0});
  return file_->Sync();
}

}  // namespace lorikeet
