// One layer of a TrainModel, forward and backward, over a batch of packed
// sequences.
//
// A LayerTape is what the backward pass wants to know. Its residual is the
// layer's checkpoint; the rest can be computed again from it, to the same bits.
// What is cheap (norms, SwiGLU) is computed again always.
//
// Thread-compatible: owns scratch memory that its calls share.

#ifndef LORIKEET_TRAIN_LAYER_PASS_H_
#define LORIKEET_TRAIN_LAYER_PASS_H_

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "train/linear_pass.h"
#include "train/owned_matrix.h"
#include "train/train_model.h"

namespace lorikeet {

// What a layer keeps between its two directions, beside its checkpoint: views
// into memory of its own, which is taken once for the largest batch.
struct LayerTape {
  Tensor q, k, v;         // rotated
  Tensor q_raw, k_raw;    // before their norms, where a model has those
  Tensor attention, lse;  // [rows, q_dim], [rows, heads]
  Tensor middle;          // residual after attention
  Tensor gate, up;
  LinearTape linears[kNumProjections];

  // Takes the memory for any layer with at most so many rows.
  // Errors: RESOURCE_EXHAUSTED.
  absl::Status Reserve(Ops& ops, const TrainModel& model, int64_t rows);
  // Lays the views out for rows of a layer.
  void Resize(const ModelConfig& config, const TrainLayer& layer, int64_t rows);
  // Of the largest layer's tape for `rows` rows.
  static int64_t SizeBytes(const TrainModel& model, int64_t rows);

 private:
  OwnedMatrix memory_;
};

// The rows of a batch, for all layers.
struct LayerRows {
  std::span<const SequenceRows> sequences;
  Tensor cos, sin, minus_sin;  // [rows, head_dim / 2]
  DropoutSource dropout;
};

class LayerPass {
 public:
  // All outlive this.
  LayerPass(const TrainModel& model, TrainOps& train, Ops& ops);

  // Takes the memory for batches of `rows` rows; `drops`: with dropout.
  // Errors: RESOURCE_EXHAUSTED.
  absl::Status Reserve(int64_t rows, bool drops);

  // Both directions are done in parts, in order, each a fraction of the work:
  // so many, of about the same length.
  static constexpr int kForwardParts = 3;
  static constexpr int kBackwardParts = 4;

  // Fills `tape` from `residual` [rows, hidden], the layer's input. With
  // `output` also writes the layer's output there (it may be `residual`).
  // `is_trained`: the linears' tapes are wanted as well.
  void Forward(int part, const TrainLayer& layer, const LayerRows& rows,
               ConstTensor residual, bool is_trained, LayerTape& tape,
               Tensor output, Stream& stream);

  // `gradient` [rows, hidden] is that of the output and becomes that of the
  // input, unless nobody below wants it.
  void Backward(int part, const TrainLayer& layer, const LayerRows& rows,
                ConstTensor residual, const LayerTape& tape, Tensor gradient,
                bool wants_input, Stream& stream);

 private:
  void RmsNorm(ConstTensor x, const TrainNorm& norm, Tensor y, Stream& stream);
  void RmsNormBackward(ConstTensor x, const TrainNorm& norm, ConstTensor dy,
                       bool accumulate, Tensor dx, Stream& stream);
  AttentionHeads HeadsOf(const TrainLayer& layer) const;
  void ForwardAttention(const TrainLayer& layer, const LayerRows& rows,
                        ConstTensor residual, bool is_trained, LayerTape& tape,
                        Stream& stream);
  void ForwardGateUp(const TrainLayer& layer, const LayerRows& rows,
                     ConstTensor residual, bool is_trained, LayerTape& tape,
                     Stream& stream);
  void ForwardDown(const TrainLayer& layer, const LayerRows& rows,
                   bool is_trained, LayerTape& tape, Tensor output,
                   Stream& stream);
  void BackwardDown(const TrainLayer& layer, const LayerRows& rows,
                    const LayerTape& tape, Tensor gradient, Stream& stream);
  void BackwardGateUp(const TrainLayer& layer, const LayerRows& rows,
                      const LayerTape& tape, Tensor gradient, Stream& stream);
  void BackwardAttention(const TrainLayer& layer, const LayerRows& rows,
                         const LayerTape& tape, Tensor gradient,
                         Stream& stream);
  void BackwardQkv(const TrainLayer& layer, const LayerRows& rows,
                   ConstTensor residual, const LayerTape& tape, Tensor gradient,
                   bool wants_input, Stream& stream);

  const TrainModel& model_;
  const ModelConfig& config_;
  TrainOps& train_;
  Ops& ops_;
  LinearPass linear_;
  OwnedMatrix normed_, normed_gradient_, output_gradient_;  // [rows, hidden]
  OwnedMatrix mlp_, gate_gradient_, up_gradient_;  // [rows, intermediate]
  OwnedMatrix attention_gradient_, dq_, dk_, dv_;
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_LAYER_PASS_H_
