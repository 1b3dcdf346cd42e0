// A file is: the length of the header (u64, little-endian), the header (JSON),
// the data. The header maps names to dtype, shape and [begin, end) in the data;
// sorted by begin, the ranges cover the data without gap or overlap. So a file
// that was cut, or glued to something else, never parses.

#include "model/safetensors.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/bytes.h"
#include "base/json.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

// The limit of the format's own library.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxRank = 16;

// Returns the size of an element in bits, or 0 if there is no such dtype.
int64_t DTypeBits(absl::string_view dtype) {
  struct Entry {
    absl::string_view name;
    int64_t bits;
  };
  static constexpr Entry kEntries[] = {
      {"F32", 32},    {"BF16", 16},   {"F16", 16},    {"I32", 32},
      {"I64", 64},    {"F64", 64},    {"BOOL", 8},    {"U8", 8},
      {"I8", 8},      {"I16", 16},    {"U16", 16},    {"U32", 32},
      {"U64", 64},    {"C64", 64},    {"F8_E5M2", 8}, {"F8_E4M3", 8},
      {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
  };
  for (const Entry& entry : kEntries) {
    if (entry.name == dtype) return entry.bits;
  }
  return 0;
}

// A tensor of the header, with its place in the data.
struct Placed {
  SafetensorsEntry entry;
  uint64_t begin = 0;
  uint64_t end = 0;
};

absl::Status TensorError(absl::string_view name, absl::string_view rest) {
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", Quote(name), " ", rest));
}

absl::Status ParseShape(const std::string& name, const Json* shape,
                        std::vector<int64_t>* out, uint64_t* count) {
  if (shape == nullptr || !shape->is_array()) {
    return TensorError(name, "has no list \"shape\"");
  }
  if (shape->items().size() > kMaxRank) {
    return TensorError(name,
                       absl::StrCat("has ", shape->items().size(),
                                    " dimensions, the limit is ", kMaxRank));
  }
  // Elements in all fit 2^59, so that their bits fit 64.
  constexpr uint64_t kMaxElements = uint64_t{1} << 59;
  *count = 1;
  for (const Json& dim : shape->items()) {
    if (!dim.is_int() || dim.AsInt() < 0) {
      return TensorError(
          name, absl::StrCat("has a dimension ", Escape(dim.Dump(), 40),
                             ", expected an integer >= 0"));
    }
    const uint64_t size = static_cast<uint64_t>(dim.AsInt());
    if (size > kMaxElements || (size > 0 && *count > kMaxElements / size)) {
      return TensorError(name, "has a shape whose size overflows");
    }
    *count *= size;
    out->push_back(dim.AsInt());
  }
  return absl::OkStatus();
}

absl::Status ParseOffsets(const std::string& name, const Json* offsets,
                          uint64_t data_bytes, Placed* out) {
  if (offsets == nullptr || !offsets->is_array() ||
      offsets->items().size() != 2 || !offsets->items()[0].is_int() ||
      !offsets->items()[1].is_int() || offsets->items()[0].AsInt() < 0 ||
      offsets->items()[1].AsInt() < offsets->items()[0].AsInt()) {
    return TensorError(name, "has no \"data_offsets\" [begin, end]");
  }
  out->begin = static_cast<uint64_t>(offsets->items()[0].AsInt());
  out->end = static_cast<uint64_t>(offsets->items()[1].AsInt());
  if (out->end > data_bytes) {
    return absl::DataLossError(absl::StrCat(
        "tensor ", Quote(name), " ends at byte ", out->end,
        " of the data, which has only ", data_bytes, ": the file is cut"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Placed> ParseEntry(const std::string& name, const Json& info,
                                  absl::string_view data) {
  if (!info.is_object()) {
    return TensorError(
        name, absl::StrCat("is ", info.TypeName(), ", expected an object"));
  }
  Placed placed;
  placed.entry.name = name;
  const Json* dtype = info.Find("dtype");
  if (dtype == nullptr || !dtype->is_string()) {
    return TensorError(name, "has no string \"dtype\"");
  }
  placed.entry.dtype = dtype->AsString();
  const int64_t bits = DTypeBits(placed.entry.dtype);
  if (bits == 0) {
    return TensorError(
        name, absl::StrCat("has unknown dtype ", Quote(dtype->AsString())));
  }
  uint64_t count = 0;
  RETURN_IF_ERROR(
      ParseShape(name, info.Find("shape"), &placed.entry.shape, &count));
  RETURN_IF_ERROR(
      ParseOffsets(name, info.Find("data_offsets"), data.size(), &placed));
  // The element count is below 2^59, bits per element at most 64: divide
  // rather than multiply.
  const uint64_t size_bytes = placed.end - placed.begin;
  const uint64_t whole_bytes =
      bits >= 8 ? static_cast<uint64_t>(bits / 8) : uint64_t{1};
  const bool fits =
      bits >= 8
          ? size_bytes % whole_bytes == 0 && size_bytes / whole_bytes == count
          : (count * static_cast<uint64_t>(bits)) % 8 == 0 &&
                count * static_cast<uint64_t>(bits) / 8 == size_bytes;
  if (!fits) {
    return TensorError(
        name, absl::StrCat("has ", size_bytes, " bytes, which is not ",
                           placed.entry.dtype, " [",
                           absl::StrJoin(placed.entry.shape, ", "), "]"));
  }
  placed.entry.bytes = data.substr(static_cast<size_t>(placed.begin),
                                   static_cast<size_t>(size_bytes));
  return placed;
}

absl::Status CheckCoverage(const std::vector<Placed>& placed,
                           uint64_t data_bytes) {
  uint64_t end = 0;
  for (const Placed& p : placed) {
    if (p.begin != end) {
      return TensorError(
          p.entry.name,
          absl::StrCat("begins at byte ", p.begin, " of the data, expected ",
                       end, ": a gap or an overlap"));
    }
    end = p.end;
  }
  if (end != data_bytes) {
    return absl::DataLossError(
        absl::StrCat("the data has ", data_bytes,
                     " bytes, the header describes only ", end));
  }
  return absl::OkStatus();
}

// Whether `value`, the bits of a number without its sign, is NaN or infinite.
// Branch-free in a block, so that the compiler makes it wide.
template <typename T>
bool HasNonFinite(const T* values, int64_t count, T exponent_mask) {
  constexpr int64_t kBlock = 4096;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(count, begin + kBlock);
    T any = 0;
    for (int64_t i = begin; i < end; ++i) {
      any = static_cast<T>(
          any | static_cast<T>((values[i] & exponent_mask) == exponent_mask));
    }
    if (any != 0) return true;
  }
  return false;
}

bool RowHasNonFinite(ConstTensor t, int64_t row) {
  const char* data =
      static_cast<const char*>(t.data) + row * t.stride * SizeBytes(t.dtype);
  switch (t.dtype) {
    case DType::kF32:
      return HasNonFinite<uint32_t>(reinterpret_cast<const uint32_t*>(data),
                                    t.cols, 0x7f800000u);
    case DType::kBF16:
      return HasNonFinite<uint16_t>(reinterpret_cast<const uint16_t*>(data),
                                    t.cols, 0x7f80u);
    case DType::kF16:
      return HasNonFinite<uint16_t>(reinterpret_cast<const uint16_t*>(data),
                                    t.cols, 0x7c00u);
    case DType::kI8:
      CHECK(false && "no tensor of a file is int8");
  }
  return false;
}

bool IsNonFinite(ConstTensor t, int64_t row, int64_t col) {
  ConstTensor one = t;
  one.data = static_cast<const char*>(t.data) +
             (row * t.stride + col) * SizeBytes(t.dtype);
  one.cols = 1;
  return RowHasNonFinite(one, 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(
    FileSystem& fs, const std::string& path, absl::string_view name) {
  absl::StatusOr<std::unique_ptr<MappedFile>> mapping = fs.Map(path);
  if (!mapping.ok()) return Annotate(mapping.status(), Escape(name));
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile());
  file->name_ = std::string(name);
  file->mapping_ = *std::move(mapping);
  RETURN_IF_ERROR(
      Annotate(file->ParseHeader(file->mapping_->bytes()), Escape(name)));
  return file;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Parse(
    std::string bytes, absl::string_view name) {
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile());
  file->name_ = std::string(name);
  file->owned_ = std::move(bytes);
  RETURN_IF_ERROR(Annotate(file->ParseHeader(file->owned_), Escape(name)));
  return file;
}

absl::Status SafetensorsFile::ParseHeader(absl::string_view bytes) {
  constexpr size_t kLengthBytes = sizeof(uint64_t);
  if (bytes.size() < kLengthBytes) {
    return absl::DataLossError(
        absl::StrCat("has ", bytes.size(), " bytes, less than a header"));
  }
  const uint64_t header_bytes = LoadLittleEndian<uint64_t>(bytes.data());
  if (header_bytes > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("says its header has ", header_bytes,
                     " bytes, the limit is ", kMaxHeaderBytes));
  }
  if (header_bytes > bytes.size() - kLengthBytes) {
    return absl::DataLossError(
        absl::StrCat("says its header has ", header_bytes, " bytes, but only ",
                     bytes.size() - kLengthBytes, " follow: the file is cut"));
  }
  const absl::string_view text =
      bytes.substr(kLengthBytes, static_cast<size_t>(header_bytes));
  const absl::string_view data =
      bytes.substr(kLengthBytes + static_cast<size_t>(header_bytes));
  constexpr int kHeaderDepth = 4;  // header, tensor, shape
  absl::StatusOr<Json> header = Json::Parse(text, kHeaderDepth);
  if (!header.ok()) return Annotate(header.status(), "header");
  if (!header->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("header is ", header->TypeName(), ", expected an object"));
  }

  std::vector<Placed> placed;
  for (const Json::Member& member : header->members()) {
    if (member.first == "__metadata__") continue;
    ASSIGN_OR_RETURN(Placed p, ParseEntry(member.first, member.second, data));
    placed.push_back(std::move(p));
  }
  std::sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) {
    return std::tie(a.begin, a.end, a.entry.name) <
           std::tie(b.begin, b.end, b.entry.name);
  });
  RETURN_IF_ERROR(CheckCoverage(placed, data.size()));
  for (Placed& p : placed) {
    by_name_.emplace(p.entry.name, entries_.size());
    entries_.push_back(std::move(p.entry));
  }
  return absl::OkStatus();
}

const SafetensorsEntry* SafetensorsFile::Find(absl::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &entries_[it->second];
}

absl::StatusOr<DType> FloatDType(const SafetensorsEntry& entry) {
  if (entry.dtype == "F32") return DType::kF32;
  if (entry.dtype == "BF16") return DType::kBF16;
  if (entry.dtype == "F16") return DType::kF16;
  return TensorError(entry.name, absl::StrCat("has dtype ", Escape(entry.dtype),
                                              ", expected F32, BF16 or F16"));
}

absl::StatusOr<ConstTensor> FloatTensor(const SafetensorsEntry& entry,
                                        Buffer* storage) {
  ASSIGN_OR_RETURN(const DType dtype, FloatDType(entry));
  if (entry.shape.size() != 1 && entry.shape.size() != 2) {
    return TensorError(entry.name,
                       absl::StrCat("has ", entry.shape.size(),
                                    " dimensions, expected 1 or 2"));
  }
  const int64_t rows = entry.shape.size() == 2 ? entry.shape[0] : 1;
  const int64_t cols = entry.shape.back();
  const void* data = entry.bytes.data();
  // A header of odd length leaves the data unaligned.
  const auto address = reinterpret_cast<uintptr_t>(data);
  if (address % static_cast<uintptr_t>(SizeBytes(dtype)) != 0) {
    *storage = Buffer(static_cast<int64_t>(entry.bytes.size()));
    if (!entry.bytes.empty()) {
      std::memcpy(storage->data(), data, entry.bytes.size());
    }
    data = storage->data();
  }
  return ConstTensor(data, dtype, rows, cols, cols);
}

std::string FirstNonFinite(ConstTensor t) {
  for (int64_t i = 0; i < t.rows; ++i) {
    if (!RowHasNonFinite(t, i)) continue;
    for (int64_t j = 0; j < t.cols; ++j) {
      if (IsNonFinite(t, i, j)) return absl::StrCat("[", i, ", ", j, "]");
    }
  }
  return "";
}

}  // namespace lorikeet
