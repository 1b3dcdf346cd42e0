#include "train/batch_pass.h"

#include <algorithm>

#include "base/check.h"
#include "base/status.h"

namespace lorikeet {
namespace {

// Logits that exist at once: enough rows that widening lm_head's weights for
// them is cheap, few enough to matter little beside the model.
constexpr int64_t kLogitsBytes = int64_t{32} << 20;
constexpr int64_t kMinTileRows = 16;

int64_t TileRows(const ModelConfig& config) {
  return std::max(kMinTileRows, kLogitsBytes / (4 * config.vocab_size));
}

}  // namespace

int64_t DefaultTapeBytes(const Model& base) {
  return base.weight_bytes() / 8 * 5;
}

BatchPass::BatchPass(const TrainModel& model, TrainOps& train, Ops& ops,
                     Stream& stream, const BatchPassOptions& options)
    : model_(model),
      train_(train),
      ops_(ops),
      num_layers_(model.config().num_layers),
      tile_rows_(std::min(options.max_tokens, options.loss_rows > 0
                                                  ? options.loss_rows
                                                  : TileRows(model.config()))),
      stream_(stream),
      rope_(model.config()),
      layer_pass_(model, train, ops),
      status_(Reserve(options)) {}

absl::Status BatchPass::Reserve(const BatchPassOptions& options) {
  const ModelConfig& config = model_.config();
  const int64_t rows = options.max_tokens;
  const int64_t hidden = config.hidden_size;
  const int64_t each = LayerTape::SizeBytes(model_, rows);
  kept_layers_ = std::min(num_layers_, options.tape_bytes / each);
  kept_.resize(static_cast<size_t>(kept_layers_));
  for (LayerTape& tape : kept_) {
    RETURN_IF_ERROR(tape.Reserve(ops_, model_, rows));
  }
  RETURN_IF_ERROR(spare_.Reserve(ops_, model_, rows));
  inputs_.resize(static_cast<size_t>(num_layers_));
  for (int64_t i = model_.first_trained_layer(); i < num_layers_; ++i) {
    RETURN_IF_ERROR(
        inputs_[static_cast<size_t>(i)].Reserve(ops_, rows, hidden));
  }
  for (OwnedMatrix* matrix : {&cos_, &sin_, &minus_sin_}) {
    RETURN_IF_ERROR(matrix->Reserve(ops_, rows, config.head_dim / 2));
  }
  for (OwnedMatrix* matrix :
       {&residual_, &last_, &normed_, &normed_gradient_, &gradient_}) {
    RETURN_IF_ERROR(matrix->Reserve(ops_, rows, hidden));
  }
  RETURN_IF_ERROR(logits_.Reserve(ops_, tile_rows_, config.vocab_size));
  return layer_pass_.Reserve(rows, options.drops);
}

void BatchPass::Begin(const TrainBatch& batch, float loss_scale,
                      const DropoutSource& dropout) {
  CHECK(stage_ == Stage::kDone && status_.ok());
  loss_scale_ = loss_scale;
  tokens_.clear();
  sequences_.clear();
  target_rows_.clear();
  targets_.clear();
  target_owner_.clear();
  for (const TrainSequence* sequence : batch) {
    const int32_t begin = static_cast<int32_t>(tokens_.size());
    for (size_t i = 0; i < sequence->tokens.size(); ++i) {
      tokens_.push_back(sequence->tokens[i]);
      if (!sequence->is_target[i]) continue;
      CHECK_GT(i, 0u);
      target_rows_.push_back(begin + static_cast<int32_t>(i) - 1);
      targets_.push_back(sequence->tokens[i]);
      target_owner_.push_back(sequences_.size());
    }
    sequences_.push_back({begin, static_cast<int32_t>(tokens_.size()), 0, {}});
  }
  CHECK(!tokens_.empty());
  losses_.resize(targets_.size());
  rows_.sequences = sequences_;
  rows_.dropout = wants_gradient() ? dropout : DropoutSource();
  stage_ = Stage::kEmbed;
}

int64_t BatchPass::SlicesOf(int64_t targets) const {
  const int64_t tiles =
      std::max<int64_t>(1, (targets + tile_rows_ - 1) / tile_rows_);
  int64_t slices = 1 + num_layers_ * LayerPass::kForwardParts + 2 * tiles;
  for (int64_t i = model_.first_trained_layer(); i < num_layers_; ++i) {
    slices += BackwardPartsOf(i);
  }
  return slices;
}

double BatchPass::loss_sum() const {
  double sum = 0;
  for (const TokenLoss& loss : losses_) sum += loss.loss;
  return sum;
}

int64_t BatchPass::num_exact() const {
  std::vector<bool> is_exact(sequences_.size(), true);
  for (size_t i = 0; i < losses_.size(); ++i) {
    if (!losses_[i].is_largest) is_exact[target_owner_[i]] = false;
  }
  return std::count(is_exact.begin(), is_exact.end(), true);
}

bool BatchPass::RunSlice() {
  switch (stage_) {
    case Stage::kEmbed:
      Embed();
      next_ = 0;
      part_ = 0;
      stage_ = Stage::kForward;
      return false;
    case Stage::kForward:
      ForwardLayer(next_, part_);
      if (++part_ < LayerPass::kForwardParts) return false;
      part_ = 0;
      if (++next_ < num_layers_) return false;
      next_ = 0;
      PrepareLoss();
      stage_ = Stage::kLoss;
      return false;
    case Stage::kLoss:
      LossTile();
      stage_ = Stage::kLossBackward;
      return false;
    case Stage::kLossBackward:
      LossTileBackward();
      next_ += tile_rows_;
      if (next_ < num_targets()) {
        stage_ = Stage::kLoss;
        return false;
      }
      FinishLoss();
      next_ = num_layers_ - 1;
      stage_ = wants_gradient() && num_targets() > 0 ? Stage::kBackward
                                                     : Stage::kDone;
      return stage_ == Stage::kDone;
    case Stage::kBackward:
      BackwardLayer(next_, part_);
      if (++part_ < BackwardPartsOf(next_)) return false;
      part_ = 0;
      if (--next_ >= model_.first_trained_layer()) return false;
      if (model_.embedding_gradient().data != nullptr) {
        train_.EmbedBackward(tokens_, gradient_.view(),
                             model_.embedding_gradient(), stream_);
      }
      stage_ = Stage::kDone;
      return true;
    case Stage::kDone:
      return true;
  }
  return true;
}

void BatchPass::Embed() {
  const ModelConfig& config = model_.config();
  const int64_t n = static_cast<int64_t>(tokens_.size());
  const int64_t half = config.head_dim / 2;
  rows_.cos = cos_.Resize(n, half);
  rows_.sin = sin_.Resize(n, half);
  rows_.minus_sin = minus_sin_.Resize(n, half);
  const size_t count = static_cast<size_t>(n * half);
  angles_.resize(3 * count);
  float* const cos = angles_.data();
  float* const sin = cos + count;
  float* const minus_sin = sin + count;
  rope_.Fill(sequences_, cos, sin);
  std::transform(sin, sin + count, minus_sin, [](float s) { return -s; });
  const int64_t bytes = static_cast<int64_t>(count * sizeof(float));
  ops_.CopyIn(cos, rows_.cos.data, bytes, stream_);
  ops_.CopyIn(sin, rows_.sin.data, bytes, stream_);
  ops_.CopyIn(minus_sin, rows_.minus_sin.data, bytes, stream_);
  const Tensor x = Input(0);
  const TrainMatrix& table = model_.embedding();
  if (table.packed != nullptr) {
    ops_.Embed(*table.packed, tokens_, x, stream_);
  } else {
    ops_.GatherRows(table.plain, tokens_, x, stream_);
  }
}

Tensor BatchPass::Input(int64_t layer) {
  const int64_t n = static_cast<int64_t>(tokens_.size());
  const bool is_kept = layer < num_layers_ && IsTrained(layer);
  return (is_kept ? inputs_[static_cast<size_t>(layer)] : residual_)
      .Resize(n, model_.config().hidden_size);
}

void BatchPass::ForwardLayer(int64_t layer, int part) {
  // The tape of a layer that is computed again later is not worth filling.
  const bool is_kept = IsTrained(layer) && layer >= num_layers_ - kept_layers_;
  const Tensor input = Input(layer);
  const Tensor output = Input(layer + 1);
  layer_pass_.Forward(part, model_.layers()[static_cast<size_t>(layer)], rows_,
                      input, is_kept, is_kept ? TapeOf(layer) : spare_, output,
                      stream_);
}

void BatchPass::PrepareLoss() {
  const Tensor last = last_.Resize(num_targets(), model_.config().hidden_size);
  const Tensor normed = normed_.Resize(last.rows, last.cols);
  ops_.GatherRows(residual_.view(), target_rows_, last, stream_);
  ops_.RmsNorm(last, model_.final_norm().weight, model_.config().rms_norm_eps,
               normed, stream_);
  normed_gradient_.Resize(last.rows, last.cols);
}

void BatchPass::LossTile() {
  const int64_t rows = RowsOfTile();
  if (rows <= 0) return;
  const size_t begin = static_cast<size_t>(next_);
  const size_t count = static_cast<size_t>(rows);
  const Tensor logits = logits_.Resize(rows, model_.config().vocab_size);
  const Tensor x = normed_.view().Rows(next_, rows);
  train_.Linear(x, model_.lm_head(), nullptr, logits, stream_);
  train_.CrossEntropy(logits, std::span(targets_).subspan(begin, count),
                      loss_scale_, std::span(losses_).subspan(begin, count),
                      stream_);
}

void BatchPass::LossTileBackward() {
  const int64_t rows = RowsOfTile();
  if (rows <= 0 || !wants_gradient()) return;
  const Tensor logits = logits_.view();
  const Tensor x = normed_.view().Rows(next_, rows);
  train_.LinearBackward(logits, model_.lm_head(), false,
                        normed_gradient_.view().Rows(next_, rows), stream_);
  if (model_.lm_head_gradient().data != nullptr) {
    train_.Product(ProductForm::kTN, 1, logits, x, true,
                   model_.lm_head_gradient(), stream_);
  }
}

void BatchPass::FinishLoss() {
  if (!wants_gradient() || num_targets() == 0) return;
  const Tensor dx = normed_gradient_.view();
  train_.RmsNormBackward(last_.view(), model_.final_norm().weight,
                         model_.config().rms_norm_eps, dx, false, dx,
                         model_.final_norm().gradient, stream_);
  const Tensor gradient = gradient_.Resize(static_cast<int64_t>(tokens_.size()),
                                           model_.config().hidden_size);
  train_.Clear(gradient, stream_);
  // No row predicts two targets: what is added is what is there.
  train_.EmbedBackward(target_rows_, dx, gradient, stream_);
}

int BatchPass::BackwardPartsOf(int64_t layer) const {
  const bool is_kept = layer >= num_layers_ - kept_layers_;
  return (is_kept ? 0 : LayerPass::kForwardParts) + LayerPass::kBackwardParts;
}

void BatchPass::BackwardLayer(int64_t layer, int part) {
  const TrainLayer& weights = model_.layers()[static_cast<size_t>(layer)];
  const Tensor input = inputs_[static_cast<size_t>(layer)].view();
  LayerTape& tape = TapeOf(layer);
  const int again = BackwardPartsOf(layer) - LayerPass::kBackwardParts;
  if (part < again) {
    layer_pass_.Forward(part, weights, rows_, input, /*is_trained=*/true, tape,
                        /*output=*/{}, stream_);
    return;
  }
  const bool wants_input = layer > model_.first_trained_layer() ||
                           model_.embedding_gradient().data != nullptr;
  layer_pass_.Backward(part - again, weights, rows_, input, tape,
                       gradient_.view(), wants_input, stream_);
}

}  // namespace lorikeet
