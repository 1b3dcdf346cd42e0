// A Checkpoint is the tensors of a model directory: one model.safetensors, or
// the shards that model.safetensors.index.json names.
//
// Only headers are read here. Every shard's tensors are exactly those that the
// index says it has, so no name stands twice. Immutable; thread-safe.

#ifndef LORIKEET_MODEL_CHECKPOINT_H_
#define LORIKEET_MODEL_CHECKPOINT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "model/safetensors.h"

namespace lorikeet {

// A tensor with the file that holds it. Points into the checkpoint.
struct CheckpointTensor {
  const SafetensorsEntry* entry = nullptr;
  const std::string* file = nullptr;  // "model-00001-of-00002.safetensors"
};

// Returns true for the buffers that old versions of transformers stored and
// that nobody reads: "*.rotary_emb.inv_freq".
bool IsIgnoredTensor(absl::string_view name);

class Checkpoint {
 public:
  // Errors: NOT_FOUND naming the missing file; INVALID_ARGUMENT naming index,
  // file or tensor; DATA_LOSS naming the damaged file.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(
      FileSystem& fs, const std::string& dir);

  // All tensors, ascending by name.
  const std::vector<CheckpointTensor>& tensors() const { return tensors_; }
  // Returns null if there is no such tensor.
  const CheckpointTensor* Find(absl::string_view name) const;

 private:
  Checkpoint() = default;
  absl::Status OpenShards(FileSystem& fs, const std::string& dir);
  void Index();

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<CheckpointTensor> tensors_;
  absl::flat_hash_map<absl::string_view, size_t> by_name_;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_CHECKPOINT_H_
