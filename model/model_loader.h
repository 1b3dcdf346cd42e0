// A ModelLoader fills one Model: it lists the tensors that the configuration
// asks for, checks that the checkpoint has exactly those, and then reads,
// hashes and packs them on all cores.
//
// Nothing of the size of a weight is allocated before every name, shape and
// dtype was checked. Used once.

#ifndef LORIKEET_MODEL_MODEL_LOADER_H_
#define LORIKEET_MODEL_MODEL_LOADER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "model/weight_cache.h"

namespace lorikeet {

class ModelLoader {
 public:
  // All must outlive this.
  ModelLoader(FileSystem& fs, const std::string& dir, Ops& ops,
              const ModelOptions& options);

  absl::StatusOr<std::unique_ptr<Model>> Load();

 private:
  // A tensor of the model and where it goes: matrix or vector is not null.
  struct Target {
    std::string name;
    std::vector<int64_t> shape;
    std::string fields;  // what config.json calls the shape, for messages
    std::unique_ptr<PackedWeight>* matrix = nullptr;
    std::vector<float>* vector = nullptr;      // norms and biases, kept as f32
    const CheckpointTensor* source = nullptr;  // null with dummy weights

    int64_t size() const;
    int64_t StoredBytes(DType dtype) const;
    bool is_norm() const;
  };
  class DummySource;

  absl::Status ReadConfigs();
  void ListTargets();
  void ListLayer(int64_t layer);
  absl::Status FindSources(const Checkpoint& checkpoint);
  absl::Status RefuseUnexpected(const Checkpoint& checkpoint) const;
  absl::Status CheckMemory() const;
  DType StorageOf(const Target& target) const;

  absl::Status LoadCheckpoint();
  // From the cache of quantized weights, if it has them.
  absl::Status LoadCached(WeightCache& cache);
  absl::Status LoadSources();
  void WriteCache(WeightCache& cache) const;
  absl::Status LoadDummy();
  absl::Status NoDeviceMemory(const Target& target) const;
  absl::Status LoadTarget(const Target& target) const;
  absl::Status RestoreTarget(const Target& target,
                             const WeightCache& cache) const;
  // Calls `load` for every target, on all cores, and reports progress. Returns
  // the error of the first target in order.
  absl::Status ForEachTarget(
      const std::function<absl::Status(const Target&)>& load);
  Digest HashSources() const;
  void CountBytes();

  FileSystem& fs_;
  const std::string& dir_;
  Ops& ops_;
  const ModelOptions& options_;
  std::string config_text_;
  std::vector<Target> targets_;  // ascending by name
  std::unique_ptr<Model> model_;
  std::atomic<bool> has_failed_ = false;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_MODEL_LOADER_H_
