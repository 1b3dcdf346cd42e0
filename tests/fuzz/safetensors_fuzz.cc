// Any bytes as a .safetensors file: a status or entries that lie inside.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lorikeet;  // NOLINT: a fuzz target is a leaf
  const auto file = SafetensorsFile::Parse(
      std::string(reinterpret_cast<const char*>(data), size), "fuzz");
  if (!file.ok()) {
    CHECK(!file.status().message().empty());
    return 0;
  }
  size_t data_bytes = 0;
  for (const SafetensorsEntry& entry : (*file)->entries()) {
    CHECK((*file)->Find(entry.name) == &entry);
    data_bytes += entry.bytes.size();
    Buffer storage;
    const auto tensor = FloatTensor(entry, &storage);
    if (tensor.ok()) FirstNonFinite(*tensor);
  }
  CHECK_LE(data_bytes, size);
  return 0;
}
