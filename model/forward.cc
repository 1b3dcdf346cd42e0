// The layer loop. Every linear goes through LinearGroup with what follows it as
// its epilogue, so a layer is five calls and a backend may fuse each of them:
//
//   x       RMSNorm(residual), made by the epilogue of the call before
//   qkv     q = rotated, k and v to the cache
//   attn    attention over the cache
//   o       residual += o;     x = RMSNorm(residual)
//   mlp     silu(gate) * up
//   down    residual += down;  x = RMSNorm(residual) for the next layer

#include "model/forward.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"
#include "model/rope.h"

namespace lorikeet {
namespace {

// A matrix whose memory is kept from step to step and grows with need.
class ScratchMatrix {
 public:
  Tensor Resize(int64_t rows, int64_t cols) {
    const int64_t needed = rows * cols * static_cast<int64_t>(sizeof(float));
    if (needed > buffer_.size_bytes()) {
      // A little more, so that slowly growing batches settle.
      buffer_ = Buffer(needed + needed / 4);
    }
    return Tensor::F32(buffer_.as<float>(), rows, cols);
  }

 private:
  Buffer buffer_;
};

void CheckBatch(const ForwardBatch& batch, const ModelConfig& config,
                int64_t num_blocks) {
  int32_t row = 0;
  for (const SequenceRows& s : batch.sequences) {
    CHECK(s.row_begin == row && s.row_end > row && s.first_position >= 0);
    row = s.row_end;
    const int64_t positions =
        int64_t{s.first_position} + s.row_end - s.row_begin;
    CHECK_LE(positions,
             static_cast<int64_t>(s.block_table.size()) * kKvBlockSize);
  }
  CHECK_EQ(static_cast<size_t>(row), batch.tokens.size());
  for (const Token token : batch.tokens) {
    CHECK(token >= 0 && token < config.vocab_size);
  }
  int32_t previous = -1;
  for (const int32_t logit_row : batch.logit_rows) {
    CHECK(logit_row > previous && logit_row < row);
    previous = logit_row;
  }
  for (const auto& [from, to] : batch.block_copies) {
    CHECK(from >= 0 && from < num_blocks && to >= 0 && to < num_blocks);
  }
}

LinearPart Part(const LayerWeights& weights, int64_t layer, Projection p) {
  const size_t i = static_cast<size_t>(p);
  return {{static_cast<int32_t>(layer), p},
          weights.linears[i].get(),
          weights.biases[i].empty() ? nullptr : weights.biases[i].data()};
}

std::array<LinearPart, 3> Qkv(const LayerWeights& weights, int64_t layer) {
  return {Part(weights, layer, Projection::kQ),
          Part(weights, layer, Projection::kK),
          Part(weights, layer, Projection::kV)};
}

// Announces the weights that most rows read: those of adapters with their own,
// where these begin the step (see LoraBatch), else the base's.
void WillRead(Ops& ops, std::span<const LinearPart> parts,
              const LoraBatch& lora, int64_t rows) {
  std::array<LinearPart, 3> read;
  CHECK_LE(parts.size(), read.size());
  std::ranges::copy(parts, read.begin());
  if (!lora.empty() && lora.segments[0].row_begin == 0 &&
      2 * lora.segments[0].row_end > rows) {
    for (LinearPart& part : std::span(read).first(parts.size())) {
      const LoraSlot::Override* o =
          lora.segments[0].terms[0].slot->FindOverride(part.id);
      if (o != nullptr && o->weight != nullptr) part.weight = o->weight.get();
    }
  }
  ops.WillRead(std::span(read).first(parts.size()));
}

const float* DataOrNull(const std::vector<float>& v) {
  return v.empty() ? nullptr : v.data();
}

Epilogue ResidualRmsNorm(Tensor residual, NormId id,
                         const std::vector<float>& weight, float eps) {
  Epilogue epilogue;
  epilogue.kind = Epilogue::Kind::kResidualRmsNorm;
  epilogue.residual = residual;
  epilogue.norm_id = id;
  epilogue.norm_weight = weight.data();
  epilogue.eps = eps;
  return epilogue;
}

// Returns the segments of `lora` that change lm_head, as ranges of logit rows.
LoraBatch LogitSegments(const LoraBatch& lora,
                        std::span<const int32_t> logit_rows) {
  const LinearId id = LinearId::LmHead();
  const auto index_of = [&](int32_t row) {
    return static_cast<int32_t>(std::ranges::lower_bound(logit_rows, row) -
                                logit_rows.begin());
  };
  LoraBatch result;
  for (const LoraSegment& segment : lora.segments) {
    const bool changes =
        std::ranges::any_of(segment.terms, [id](const LoraTerm& term) {
          return term.slot->Find(id) != nullptr ||
                 term.slot->FindOverride(id) != nullptr;
        });
    if (!changes) continue;
    const int32_t begin = index_of(segment.row_begin);
    const int32_t end = index_of(segment.row_end);
    if (begin < end) result.segments.push_back({begin, end, segment.terms});
  }
  return result;
}

}  // namespace

struct Forward::Workspace {
  explicit Workspace(const ModelConfig& config) : rope(config) {}

  RopeTable rope;
  ScratchMatrix residual, x;   // [rows, hidden]
  ScratchMatrix q, attention;  // [rows, q_dim]
  ScratchMatrix mlp;           // [rows, intermediate]
  ScratchMatrix cos, sin;      // [rows, head_dim / 2]
  ScratchMatrix last;          // [logit rows, hidden]
  ScratchMatrix logits;        // [logit rows, vocab]
};

Forward::Forward(const Model& model, Ops& ops, KvPool& pool)
    : model_(model),
      ops_(ops),
      pool_(pool),
      workspace_(std::make_unique<Workspace>(model.config())) {}

Forward::~Forward() = default;

Tensor Forward::Run(const ForwardBatch& batch, Stream& stream) {
  const ModelConfig& config = model_.config();
  CheckBatch(batch, config, pool_.num_blocks());
  const int64_t rows = static_cast<int64_t>(batch.tokens.size());
  const int64_t logit_rows = static_cast<int64_t>(batch.logit_rows.size());
  const float eps = config.rms_norm_eps;
  const float scale =
      static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));

  Workspace& w = *workspace_;
  const Tensor logits = w.logits.Resize(logit_rows, config.vocab_size);
  if (!batch.block_copies.empty()) {
    for (int64_t i = 0; i < config.num_layers; ++i) {
      ops_.KvCopy(pool_.layer(i), batch.block_copies, stream);
    }
  }
  if (rows == 0) return logits;

  const Tensor residual = w.residual.Resize(rows, config.hidden_size);
  const Tensor x = w.x.Resize(rows, config.hidden_size);
  const Tensor q = w.q.Resize(rows, config.q_dim());
  const Tensor attention = w.attention.Resize(rows, config.q_dim());
  const Tensor mlp = w.mlp.Resize(rows, config.intermediate_size);
  const Tensor cos = w.cos.Resize(rows, config.head_dim / 2);
  const Tensor sin = w.sin.Resize(rows, config.head_dim / 2);
  w.rope.Fill(batch.sequences, cos.f32(0), sin.f32(0));

  ops_.EmbedGroup(model_.embedding(), batch.tokens, batch.lora, residual,
                  stream);
  ops_.NormGroup(residual, {0, NormId::Kind::kInput},
                 model_.layer(0).input_norm.data(), eps, batch.lora,
                 /*heads=*/1, x, stream);

  const LinearPart lm_head{LinearId::LmHead(), &model_.lm_head()};
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const LayerWeights& layer = model_.layer(i);
    const PagedKvView kv = pool_.layer(i);
    const int64_t window = config.sliding_window[static_cast<size_t>(i)];
    const int32_t index = static_cast<int32_t>(i);
    const bool is_last = i + 1 == config.num_layers;
    const std::vector<float>& next_norm =
        is_last ? model_.final_norm() : model_.layer(i + 1).input_norm;
    const NormId next_norm_id =
        is_last ? NormId::Final() : NormId{index + 1, NormId::Kind::kInput};
    const auto part = [&](Projection p) { return Part(layer, i, p); };

    RopeKvAppend rope;
    rope.cos = cos.f32(0);
    rope.sin = sin.f32(0);
    rope.q_norm = DataOrNull(layer.q_norm);
    rope.k_norm = DataOrNull(layer.k_norm);
    rope.q_norm_id = {index, NormId::Kind::kQ};
    rope.k_norm_id = {index, NormId::Kind::kK};
    rope.eps = eps;
    rope.kv = kv;
    rope.sequences = batch.sequences;
    Epilogue rope_kv_append;
    rope_kv_append.kind = Epilogue::Kind::kRopeKvAppend;
    rope_kv_append.rope = &rope;
    const std::array qkv = Qkv(layer, i);
    const std::array o = {part(Projection::kO)};
    WillRead(ops_, o, batch.lora, rows);
    ops_.LinearGroup(x, qkv, batch.lora, rope_kv_append, q, stream);

    ops_.PagedAttention(q, kv, batch.sequences, scale, window, attention,
                        stream);

    const std::array gate_up = {part(Projection::kGate), part(Projection::kUp)};
    WillRead(ops_, gate_up, batch.lora, rows);
    ops_.LinearGroup(
        attention, o, batch.lora,
        ResidualRmsNorm(residual, {index, NormId::Kind::kPostAttention},
                        layer.post_norm, eps),
        x, stream);

    Epilogue silu_mul;
    silu_mul.kind = Epilogue::Kind::kSiluMul;
    const std::array down = {part(Projection::kDown)};
    WillRead(ops_, down, batch.lora, rows);
    ops_.LinearGroup(x, gate_up, batch.lora, silu_mul, mlp, stream);

    if (is_last) {
      WillRead(ops_, std::span(&lm_head, 1), batch.lora, rows);
    } else {
      WillRead(ops_, Qkv(model_.layer(i + 1), i + 1), batch.lora, rows);
    }
    ops_.LinearGroup(mlp, down, batch.lora,
                     ResidualRmsNorm(residual, next_norm_id, next_norm, eps), x,
                     stream);
  }

  if (logit_rows == 0) return logits;
  const Tensor last = w.last.Resize(logit_rows, config.hidden_size);
  ops_.GatherRows(x, batch.logit_rows, last, stream);
  ops_.LinearGroup(last, std::span(&lm_head, 1),
                   LogitSegments(batch.lora, batch.logit_rows), Epilogue(),
                   logits, stream);
  return logits;
}

}  // namespace lorikeet
