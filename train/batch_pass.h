// A BatchPass carries one batch through the model: forward, loss, backward, in
// slices of a fraction of a layer's work, so that a server can serve between
// them. The result does not depend on where the caller pauses.
//
// Each layer's input is kept; what else its backward pass needs is kept for as
// many of the last layers as the budget allows, and computed again for the
// others, to the same bits. Logits exist for some rows at a time, and only of
// rows that have a target.
//
// Thread-compatible: one thread.

#ifndef LORIKEET_TRAIN_BATCH_PASS_H_
#define LORIKEET_TRAIN_BATCH_PASS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/ops.h"
#include "kernels/train_ops.h"
#include "model/rope.h"
#include "train/layer_pass.h"
#include "train/owned_matrix.h"
#include "train/train_model.h"
#include "train/train_sequence.h"

namespace lorikeet {

struct BatchPassOptions {
  int64_t max_tokens = 512;  // of a batch
  int64_t tape_bytes = 0;    // for what may also be computed again
  int64_t loss_rows = 0;     // whose logits exist at once; 0: some hundred
  bool drops = false;        // dropout may be asked for
};

// A tape with which training takes somewhat more than twice the memory of the
// base.
int64_t DefaultTapeBytes(const Model& base);

class BatchPass {
 public:
  // All outlive this. Takes all memory that it will ever need.
  BatchPass(const TrainModel& model, TrainOps& train, Ops& ops, Stream& stream,
            const BatchPassOptions& options);
  // RESOURCE_EXHAUSTED naming the bytes, if there was no such memory: nothing
  // may be begun then.
  const absl::Status& status() const { return status_; }

  // Begins a batch, of which the gradient of loss_scale * (sum of the targets'
  // losses) will be added to the parameters'. loss_scale 0: only the losses are
  // wanted, without dropout. `batch` is read until the pass is done.
  // REQUIRES: 1 to max_tokens tokens, all in the vocabulary.
  void Begin(const TrainBatch& batch, float loss_scale,
             const DropoutSource& dropout);
  // Enqueues the next slice. Returns true when the pass is done. The caller
  // waits for the stream before the next one.
  bool RunSlice();
  bool is_under_way() const { return stage_ != Stage::kDone; }
  // Slices of a pass with `targets` targets, for progress.
  int64_t SlicesOf(int64_t targets) const;

  // Of the batch that is done: sum over targets, in nats.
  double loss_sum() const;
  int64_t num_targets() const {
    return static_cast<int64_t>(target_rows_.size());
  }
  // Sequences of which greedy decoding gives every target: since a prefix that
  // is right is what the model is shown, that is exact match.
  int64_t num_exact() const;

 private:
  enum class Stage { kEmbed, kForward, kLoss, kLossBackward, kBackward, kDone };

  bool wants_gradient() const { return loss_scale_ != 0; }
  bool IsTrained(int64_t layer) const {
    return wants_gradient() && layer >= model_.first_trained_layer();
  }
  // Where the input of a layer is kept.
  Tensor Input(int64_t layer);
  LayerTape& TapeOf(int64_t layer) {
    const int64_t kept = layer - (num_layers_ - kept_layers_);
    return kept >= 0 ? kept_[static_cast<size_t>(kept)] : spare_;
  }
  absl::Status Reserve(const BatchPassOptions& options);
  void Embed();
  void ForwardLayer(int64_t layer, int part);
  void PrepareLoss();
  int64_t RowsOfTile() const {
    return std::min(tile_rows_, num_targets() - next_);
  }
  void LossTile();
  void LossTileBackward();
  void FinishLoss();
  // Parts of a layer that is computed again come first.
  int BackwardPartsOf(int64_t layer) const;
  void BackwardLayer(int64_t layer, int part);

  const TrainModel& model_;
  TrainOps& train_;
  Ops& ops_;
  const int64_t num_layers_;
  const int64_t tile_rows_;  // of logits
  int64_t kept_layers_ = 0;
  Stream& stream_;
  RopeTable rope_;
  LayerPass layer_pass_;

  // The batch.
  float loss_scale_ = 0;
  Stage stage_ = Stage::kDone;
  int64_t next_ = 0;  // layer or tile
  int part_ = 0;      // of the layer
  std::vector<Token> tokens_;
  std::vector<SequenceRows> sequences_;
  std::vector<int32_t> target_rows_;  // whose logits predict a target
  std::vector<Token> targets_;
  std::vector<size_t> target_owner_;  // index of the sequence
  std::vector<TokenLoss> losses_;
  LayerRows rows_;
  std::vector<float> angles_;  // on their way to the device

  OwnedMatrix cos_, sin_, minus_sin_;
  std::vector<OwnedMatrix> inputs_;  // of layers, [rows, hidden]
  std::vector<LayerTape> kept_;      // of the last layers
  LayerTape spare_;
  OwnedMatrix residual_;                         // [rows, hidden]
  OwnedMatrix last_, normed_, normed_gradient_;  // [targets, hidden]
  OwnedMatrix logits_;                           // [tile, vocab]
  OwnedMatrix gradient_;                         // [rows, hidden]
  const absl::Status status_;  // last: making it takes memory for the others
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_BATCH_PASS_H_
