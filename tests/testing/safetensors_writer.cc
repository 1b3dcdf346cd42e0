#include "tests/testing/safetensors_writer.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/file_system.h"
#include "base/json.h"

namespace lorikeet::testing {

TestTensor MakeTensor(absl::string_view name, DType dtype,
                      std::vector<int64_t> shape,
                      const std::vector<float>& values) {
  TestTensor tensor;
  tensor.name = std::string(name);
  tensor.dtype = dtype == DType::kF32    ? "F32"
                 : dtype == DType::kBF16 ? "BF16"
                                         : "F16";
  tensor.shape = std::move(shape);
  tensor.bytes.resize(values.size() * static_cast<size_t>(SizeBytes(dtype)));
  for (size_t i = 0; i < values.size(); ++i) {
    StoreElement(dtype, tensor.bytes.data(), static_cast<int64_t>(i),
                 values[i]);
  }
  return tensor;
}

TestTensor MakeConstantTensor(absl::string_view name, DType dtype,
                              std::vector<int64_t> shape, float value) {
  size_t size = 1;
  for (const int64_t dim : shape) size *= static_cast<size_t>(dim);
  return MakeTensor(name, dtype, std::move(shape),
                    std::vector<float>(size, value));
}

std::string SafetensorsBytes(const std::vector<TestTensor>& tensors) {
  Json header = Json::Object();
  std::string data;
  for (const TestTensor& tensor : tensors) {
    Json shape = Json::Array();
    for (const int64_t dim : tensor.shape) shape.Append(Json(dim));
    Json offsets = Json::Array();
    offsets.Append(Json(static_cast<uint64_t>(data.size())));
    data += tensor.bytes;
    offsets.Append(Json(static_cast<uint64_t>(data.size())));
    Json info = Json::Object();
    info.Set("dtype", Json(tensor.dtype));
    info.Set("shape", std::move(shape));
    info.Set("data_offsets", std::move(offsets));
    header.Set(tensor.name, std::move(info));
  }
  std::string text = header.Dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string length(8, '\0');
  StoreLittleEndian<uint64_t>(text.size(), length.data());
  return absl::StrCat(length, text, data);
}

void WriteTestFile(const std::string& path, absl::string_view bytes) {
  PosixFileSystem fs;
  auto file = fs.Create(path);
  CHECK(file.ok());
  CHECK((*file)->Append(bytes).ok());
}

}  // namespace lorikeet::testing
