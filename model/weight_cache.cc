#include "model/weight_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/json.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

constexpr absl::string_view kMagic = "LKWEIGHT";
constexpr size_t kHeaderStart = 20;  // magic, length, CRC
constexpr uint64_t kMaxHeaderBytes = 64 << 20;
constexpr size_t kAlignment = 64;
constexpr int64_t kMaxDim = int64_t{1} << 40;

size_t Aligned(size_t offset) {
  return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

std::string HeaderOf(const std::vector<WeightCache::Entry>& entries) {
  Json tensors = Json::Array();
  for (const WeightCache::Entry& entry : entries) {
    const absl::string_view bytes = entry.weight->packed_bytes();
    Json tensor = Json::Object();
    tensor.Set("name", entry.name);
    tensor.Set("out_dim", entry.weight->out_dim());
    tensor.Set("in_dim", entry.weight->in_dim());
    tensor.Set("bytes", static_cast<int64_t>(bytes.size()));
    tensor.Set("crc32c", Crc32c(bytes));
    tensors.Append(std::move(tensor));
  }
  Json header = Json::Object();
  header.Set("tensors", std::move(tensors));
  const std::string json = header.Dump();
  std::string out(kMagic);
  out.resize(kHeaderStart);
  StoreLittleEndian<uint64_t>(json.size(), out.data() + 8);
  StoreLittleEndian<uint32_t>(Crc32c(json), out.data() + 16);
  return out + json;
}

// Appends and keeps count, so that tensors can be aligned.
class AlignedWriter {
 public:
  explicit AlignedWriter(WritableFile& file) : file_(file) {}
  absl::Status Append(absl::string_view bytes) {
    RETURN_IF_ERROR(
        file_.Append(std::string(Aligned(written_) - written_, '\0')));
    written_ = Aligned(written_) + bytes.size();
    return file_.Append(bytes);
  }

 private:
  WritableFile& file_;
  size_t written_ = 0;
};

absl::Status WriteFile(FileSystem& fs, const std::string& path,
                       const std::vector<WeightCache::Entry>& entries) {
  ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, fs.Create(path));
  AlignedWriter writer(*file);
  RETURN_IF_ERROR(writer.Append(HeaderOf(entries)));
  for (const WeightCache::Entry& entry : entries) {
    RETURN_IF_ERROR(writer.Append(entry.weight->packed_bytes()));
  }
  return file->Sync();
}

}  // namespace

WeightCache::WeightCache(FileSystem& fs, std::string dir, DType dtype,
                         const std::string& layout)
    : fs_(fs),
      dir_(std::move(dir)),
      suffix_(
          absl::StrCat("-", lorikeet::Name(dtype), "-", layout, ".weights")) {}

std::string WeightCache::PathOf(const Digest& fingerprint) const {
  return JoinPath(dir_, absl::StrCat(fingerprint.ToHex(), suffix_));
}

bool WeightCache::HasAny() const {
  const auto names = fs_.List(dir_);
  return names.ok() && std::any_of(names->begin(), names->end(),
                                   [this](const std::string& name) {
                                     return absl::EndsWith(name, suffix_);
                                   });
}

absl::Status WeightCache::Open(const Digest& fingerprint) {
  path_ = PathOf(fingerprint);
  if (!fs_.FileExists(path_)) {
    return absl::NotFoundError(absl::StrCat("there is no ", path_));
  }
  ASSIGN_OR_RETURN(file_, fs_.Map(path_));
  const absl::Status status = ReadHeader(file_->bytes());
  if (status.ok()) return status;
  tensors_.clear();
  return absl::DataLossError(absl::StrCat(path_, ": ", status.message()));
}

absl::Status WeightCache::ReadHeader(absl::string_view file) {
  if (file.size() < kHeaderStart || !absl::StartsWith(file, kMagic)) {
    return absl::DataLossError("this is no file of packed weights");
  }
  const uint64_t size = LoadLittleEndian<uint64_t>(file.data() + 8);
  if (size > kMaxHeaderBytes || size > file.size() - kHeaderStart) {
    return absl::DataLossError(absl::StrCat("a header of ", size, " bytes"));
  }
  const absl::string_view text = file.substr(kHeaderStart, size);
  if (Crc32c(text) != LoadLittleEndian<uint32_t>(file.data() + 16)) {
    return absl::DataLossError("the header is damaged");
  }
  ASSIGN_OR_RETURN(const Json header, Json::Parse(text));
  const Json* tensors = header.is_object() ? header.Find("tensors") : nullptr;
  if (tensors == nullptr || !tensors->is_array()) {
    return absl::DataLossError("the header lists no tensors");
  }
  size_t offset = kHeaderStart + size;
  for (const Json& item : tensors->items()) {
    if (!item.is_object()) return absl::DataLossError("a tensor is no object");
    JsonReader reader(item, "tensor");
    Tensor tensor;
    ASSIGN_OR_RETURN(const std::string name, reader.String("name", ""));
    ASSIGN_OR_RETURN(tensor.out_dim, reader.Int("out_dim", 0, 1, kMaxDim));
    ASSIGN_OR_RETURN(tensor.in_dim, reader.Int("in_dim", 0, 1, kMaxDim));
    ASSIGN_OR_RETURN(const int64_t crc,
                     reader.Int("crc32c", 0, 0, 0xFFFFFFFFll));
    ASSIGN_OR_RETURN(
        const int64_t bytes,
        reader.Int("bytes", 0, 1, static_cast<int64_t>(file.size())));
    offset = Aligned(offset);
    if (offset + static_cast<size_t>(bytes) > file.size()) {
      return absl::DataLossError(absl::StrCat("it ends inside of ", name));
    }
    tensor.crc = static_cast<uint32_t>(crc);
    tensor.bytes = file.substr(offset, static_cast<size_t>(bytes));
    offset += tensor.bytes.size();
    tensors_[name] = tensor;
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::string_view> WeightCache::Find(const std::string& name,
                                                    int64_t out_dim,
                                                    int64_t in_dim) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end() || found->second.out_dim != out_dim ||
      found->second.in_dim != in_dim) {
    return absl::DataLossError(absl::StrCat(path_, ": no tensor ", Quote(name),
                                            " of [", out_dim, ", ", in_dim,
                                            "]"));
  }
  if (Crc32c(found->second.bytes) != found->second.crc) {
    return absl::DataLossError(
        absl::StrCat(path_, ": tensor ", Quote(name), " is damaged"));
  }
  return found->second.bytes;
}

absl::Status WeightCache::Write(const Digest& fingerprint,
                                const std::vector<Entry>& entries) {
  RETURN_IF_ERROR(fs_.CreateDirectories(dir_));
  const std::string path = PathOf(fingerprint);
  const std::string unfinished = path + ".unfinished";
  absl::Status status = WriteFile(fs_, unfinished, entries);
  if (status.ok()) status = fs_.Rename(unfinished, path);
  if (status.ok()) return fs_.SyncDirectory(dir_);
  fs_.RemoveFile(unfinished).IgnoreError();
  return Annotate(status, path);
}

}  // namespace lorikeet
