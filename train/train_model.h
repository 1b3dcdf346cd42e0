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
  Tensor magnitude, magnitude_gradient;   // [1, out]
  std::vector<float> gain, inverse_norm;  // [out], see RefreshGains

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
  // UNIMPLEMENTED naming embed_tokens, lm_head and what else is not trained.
  static absl::StatusOr<std::unique_ptr<TrainModel>> Lora(
      const Model& base, const PeftConfig& peft, uint64_t seed, TrainOps& ops,
      Stream& stream);

  // Every parameter of the base, in f32, from the values it has.
  static std::unique_ptr<TrainModel> Full(const Model& base, const Ops& ops);

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

  // DoRA's gains come from the parameters as they are: once per step, one
  // linear after the other. Computes those of the first one from number `from`
  // on that has gains; returns the number after it, num_linears() if no other
  // is left.
  //
  // Errors: INVALID_ARGUMENT naming the module and the row whose norm is 0.
  absl::StatusOr<int64_t> RefreshGains(int64_t from, TrainOps& ops,
                                       Stream& stream);
  int64_t num_linears() const {
    return static_cast<int64_t>(layers_.size()) * kNumProjections;
  }

 private:
  absl::Status ComputeGains(const TrainLinear& linear, TrainOps& ops,
                            Stream& stream);
  explicit TrainModel(const Model& base) : base_(base) {}
  void ReadFrozen();
  TrainLinear& linear(LinearId id) {
    return layers_[static_cast<size_t>(id.layer)]
        .linears[static_cast<size_t>(id.projection)];
  }
  const TrainLinear& LinearAt(int64_t number) const {
    return layers_[static_cast<size_t>(number / kNumProjections)]
        .linears[static_cast<size_t>(number % kNumProjections)];
  }
  TrainNorm& norm(NormId id);
  // Gives a low-rank part the parameters from *next on.
  void AttachLora(TrainLora& lora, bool is_dora, size_t* next);
  // Makes a parameter of the base one that is trained.
  void Attach(const BaseParameter& parameter, Tensor value, Tensor gradient);

  const Model& base_;
  std::unique_ptr<ParameterSet> parameters_;
  std::vector<TrainLayer> layers_;
  TrainMatrix embedding_, lm_head_;
  Tensor embedding_gradient_, lm_head_gradient_;
  TrainNorm final_norm_;
  int64_t first_trained_layer_ = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_TRAIN_MODEL_H_
