// A TrainModel is a base model as one job trains it: of each linear and norm,
// what is frozen and what is a parameter. LoRA reads the resident weights and
// adds low-rank parts; full training has weights of its own.
//
// Thread-compatible. Points into the base and into its parameters.

#ifndef LORIKEET_TRAIN_TRAIN_MODEL_H_
#define LORIKEET_TRAIN_TRAIN_MODEL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "adapters/base_parameters.h"
#include "adapters/peft_config.h"
#include "kernels/linear_id.h"
#include "kernels/ops.h"
#include "kernels/train_ops.h"
#include "model/model.h"
#include "model/resident_vectors.h"
#include "train/owned_matrix.h"
#include "train/parameter_set.h"

namespace lorikeet {

// The low-rank part of one linear: y += scaling * dropout(x) a^T b^T.
struct TrainLora {
  Tensor a, a_gradient;  // [rank, in]
  Tensor b, b_gradient;  // [out, rank]
  float scaling = 0;
  // DoRA, else without data: y = gain * (W x + low-rank part) + bias with gain
  // = magnitude / norm, norms of rows of W + scaling * b a. The norm counts as
  // a constant in the backward pass, as in PEFT.
  Tensor magnitude, magnitude_gradient;  // [1, out]
  OwnedMatrix gain, inverse_norm;        // [1, out], see RefreshGains

  int64_t rank() const { return a.rows; }
  bool is_dora() const { return magnitude.data != nullptr; }
};

struct TrainLinear {
  LinearId id;
  TrainMatrix weight;
  const float* bias = nullptr;      // [out] or null
  Tensor weight_gradient;           // data is null: frozen
  float* bias_gradient = nullptr;   // the same
  std::unique_ptr<TrainLora> lora;  // null: none
};

struct TrainNorm {
  const float* weight = nullptr;  // null: the model has no such norm
  float* gradient = nullptr;      // null: frozen
};

struct TrainLayer {
  TrainLinear linears[kNumProjections];  // by Projection
  TrainNorm input_norm, post_norm, q_norm, k_norm;
  int64_t window = 0;  // of its attention, 0 = all

  const TrainLinear& operator[](Projection p) const {
    return linears[static_cast<size_t>(p)];
  }
};

class TrainModel {
 public:
  // Low-rank parts where `peft` says, with its ranks, scalings, rsLoRA and
  // DoRA. A is Gaussian with standard deviation 1 / r from `seed`, as PEFT's
  // init_lora_weights="gaussian"; B is zero, a magnitude the norm of its row.
  //
  // Errors: INVALID_ARGUMENT naming what selects no or another module;
  // UNIMPLEMENTED naming embed_tokens, lm_head and what else is not trained;
  // RESOURCE_EXHAUSTED; INTERNAL.
  static absl::StatusOr<std::unique_ptr<TrainModel>> Lora(
      const Model& base, const PeftConfig& peft, uint64_t seed, Ops& ops,
      TrainOps& train, Stream& stream);

  // Every parameter of the base, in f32, from the values it has.
  // Errors: RESOURCE_EXHAUSTED; INTERNAL.
  static absl::StatusOr<std::unique_ptr<TrainModel>> Full(const Model& base,
                                                          Ops& ops,
                                                          Stream& stream);

  const ModelConfig& config() const { return base_.config(); }
  const Model& base() const { return base_; }
  ParameterSet& parameters() { return *parameters_; }
  const ParameterSet& parameters() const { return *parameters_; }

  const std::vector<TrainLayer>& layers() const { return layers_; }
  const TrainMatrix& embedding() const { return embedding_; }
  const TrainMatrix& lm_head() const { return lm_head_; }
  const TrainNorm& final_norm() const { return final_norm_; }
  // Without data: frozen. Of a tied base both are the same.
  Tensor embedding_gradient() const { return embedding_gradient_; }
  Tensor lm_head_gradient() const { return lm_head_gradient_; }
  // No layer below this one has a parameter, nor has the embedding.
  int64_t first_trained_layer() const { return first_trained_layer_; }

  // Linears with DoRA.
  size_t num_dora() const { return dora_.size(); }
  // DoRA's gains come from the parameters as they are: once per step, of one
  // linear after the other, i < num_dora(). Waits for the stream.
  //
  // Errors: INVALID_ARGUMENT naming the module and the row whose norm is 0;
  // INTERNAL.
  absl::Status RefreshGains(size_t i, Ops& ops, TrainOps& train,
                            Stream& stream);

 private:
  explicit TrainModel(const Model& base) : base_(base) {}
  absl::Status ReadFrozen(Ops& ops);
  TrainLinear& linear(LinearId id) {
    return layers_[static_cast<size_t>(id.layer)]
        .linears[static_cast<size_t>(id.projection)];
  }
  TrainNorm& norm(NormId id);
  // Gives a low-rank part the parameters from *next on.
  void AttachLora(TrainLora& lora, bool is_dora, size_t* next);
  // Makes a parameter of the base one that is trained.
  void Attach(const BaseParameter& parameter, Tensor value, Tensor gradient);

  const Model& base_;
  ResidentVectors frozen_;
  std::unique_ptr<ParameterSet> parameters_;
  std::vector<TrainLayer> layers_;
  std::vector<LinearId> dora_;
  TrainMatrix embedding_, lm_head_;
  Tensor embedding_gradient_, lm_head_gradient_;
  TrainNorm final_norm_;
  int64_t first_trained_layer_ = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_TRAIN_MODEL_H_
