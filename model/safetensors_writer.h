// A SafetensorsWriter writes one .safetensors file, tensor by tensor, in the
// order that was announced; nothing larger than a piece of a tensor is held.
//
// The header has the metadata {"format": "pt"} that transformers asks for.
// One thread.

#ifndef LORIKEET_MODEL_SAFETENSORS_WRITER_H_
#define LORIKEET_MODEL_SAFETENSORS_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"

namespace lorikeet {

class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    std::string dtype;  // "F32", "BF16", "F16", ...
    std::vector<int64_t> shape;
    uint64_t size_bytes = 0;
  };

  // Creates the file and writes the header. Errors: as FileSystem::Create.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      FileSystem& fs, const std::string& path,
      const std::vector<Tensor>& tensors);

  // Appends the next bytes of the data: tensors in order, each row-major.
  absl::Status Append(absl::string_view bytes);
  // Makes the file durable. REQUIRES: all announced bytes were appended.
  absl::Status Finish();

 private:
  SafetensorsWriter(std::unique_ptr<WritableFile> file, uint64_t bytes_left)
      : file_(std::move(file)), bytes_left_(bytes_left) {}

  const std::unique_ptr<WritableFile> file_;
  uint64_t bytes_left_;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_SAFETENSORS_WRITER_H_
