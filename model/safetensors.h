// A SafetensorsFile is a mapped .safetensors file whose header was checked:
// sizes, dtypes, offsets without gaps or overlap, no name twice.
// Format: github.com/huggingface/safetensors, "Format".
//
// Immutable; thread-safe.

#ifndef LORIKEET_MODEL_SAFETENSORS_H_
#define LORIKEET_MODEL_SAFETENSORS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "kernels/tensor.h"

namespace lorikeet {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;           // as written: "F32", "BF16", "F16", "I32", ...
  std::vector<int64_t> shape;  // all >= 0; the product fits int64
  absl::string_view bytes;     // points into the mapping; may be unaligned
};

class SafetensorsFile {
 public:
  // `name` is what messages call the file ("model.safetensors").
  // Errors: NOT_FOUND; DATA_LOSS or INVALID_ARGUMENT naming file and tensor.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(
      FileSystem& fs, const std::string& path, absl::string_view name);
  // The same for bytes in memory, which are kept.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Parse(
      std::string bytes, absl::string_view name);

  // In the order of the data.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  // Returns null if there is no such tensor.
  const SafetensorsEntry* Find(absl::string_view name) const;
  const std::string& name() const { return name_; }

 private:
  SafetensorsFile() = default;
  absl::Status ParseHeader(absl::string_view bytes);

  std::string name_;
  std::unique_ptr<MappedFile> mapping_;
  std::string owned_;
  std::vector<SafetensorsEntry> entries_;
  absl::flat_hash_map<std::string, size_t> by_name_;
};

// Returns the dtype as ours.
// Errors: INVALID_ARGUMENT naming tensor and dtype if it is not F32, BF16, F16.
absl::StatusOr<DType> FloatDType(const SafetensorsEntry& entry);

// Returns the entry as a float matrix ([n] becomes [1, n]); a view if its bytes
// are aligned, else a copy in `storage`.
// Errors: INVALID_ARGUMENT naming tensor and dtype if it is not F32, BF16, F16,
// or not of rank 1 or 2.
absl::StatusOr<ConstTensor> FloatTensor(const SafetensorsEntry& entry,
                                        Buffer* storage);

// Returns the place of the first element that is NaN or infinite as "[i, j]",
// or an empty string.
std::string FirstNonFinite(ConstTensor t);

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_SAFETENSORS_H_
