// A Model is one base model, resident and frozen: configuration, packed
// weights, fingerprint. Its weights are never written.
//
// Thread-compatible: immutable after Load; Forward (forward.h) runs on the
// engine thread.

#ifndef LORIKEET_MODEL_MODEL_H_
#define LORIKEET_MODEL_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/digest.h"
#include "base/file_system.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "model/generation_config.h"

namespace lorikeet {

struct ModelOptions {
  std::optional<DType> dtype;  // nullopt = auto: as each tensor in the file
  bool dummy_weights = false;  // --load-format dummy: random, from config alone
  uint64_t dummy_seed = 0;
  // Where quantized weights are kept for the next start; "" = nowhere.
  std::string cache_dir;
  // Called with (bytes done, bytes in all) while weights are read. May be null.
  std::function<void(int64_t, int64_t)> progress;
};

// Weights of one layer. Biases and norms are f32.
struct LayerWeights {
  std::unique_ptr<PackedWeight> linears[kNumProjections];  // by Projection
  std::vector<float> biases[kNumProjections];              // empty = none
  std::vector<float> input_norm;                           // [hidden]
  std::vector<float> post_norm;                            // [hidden]
  std::vector<float> q_norm, k_norm;  // [head_dim] or empty
};

class Model {
 public:
  // Reads DIR/config.json, generation_config.json (optional) and
  // model.safetensors or model.safetensors.index.json with its shards. Every
  // tensor is checked by name, shape, dtype and for NaN/Inf, and then packed;
  // `ops` must outlive the model.
  //
  // Errors: NOT_FOUND naming the missing file; INVALID_ARGUMENT naming file,
  // tensor or field; UNIMPLEMENTED naming what is not supported; DATA_LOSS for
  // a damaged file, naming it.
  static absl::StatusOr<std::unique_ptr<Model>> Load(
      FileSystem& fs, const std::string& dir, Ops& ops,
      const ModelOptions& options);

  const ModelConfig& config() const { return config_; }
  const GenerationConfig& generation_config() const { return generation_; }
  // generation_config.json's end tokens, else config.json's.
  const std::vector<Token>& eos_tokens() const { return eos_tokens_; }
  // SHA-256 over config.json and every tensor's name, dtype, shape and content
  // (of names, shapes and the seed for dummy weights).
  const Digest& fingerprint() const { return fingerprint_; }
  const std::string& dir() const { return dir_; }
  int64_t weight_bytes() const { return weight_bytes_; }  // packed
  // Storage type of most weight bytes.
  DType dtype() const { return dtype_; }

  const LayerWeights& layer(int64_t i) const {
    return layers_[static_cast<size_t>(i)];
  }
  const PackedWeight& embedding() const { return *embedding_; }
  // Is embedding() if tied.
  const PackedWeight& lm_head() const {
    return lm_head_ != nullptr ? *lm_head_ : *embedding_;
  }
  const std::vector<float>& final_norm() const { return final_norm_; }

  // Input and output size of a linear.
  int64_t in_dim(Projection p) const;
  int64_t out_dim(Projection p) const;

 private:
  friend class ModelLoader;
  Model() = default;

  ModelConfig config_;
  GenerationConfig generation_;
  std::vector<Token> eos_tokens_;
  Digest fingerprint_;
  std::string dir_;
  int64_t weight_bytes_ = 0;
  DType dtype_ = DType::kBF16;
  std::vector<LayerWeights> layers_;
  std::unique_ptr<PackedWeight> embedding_;
  std::unique_ptr<PackedWeight> lm_head_;  // null if tied
  std::vector<float> final_norm_;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_MODEL_H_
