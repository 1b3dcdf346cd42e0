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
#include "model/resident_vectors.h"
#include "model/rope.h"

namespace lorikeet {
namespace {

// A matrix whose memory is kept from step to step and grows with need.
class ScratchMatrix {
 public:
  // Null data, and the error in *status, if there is no memory.
  Tensor Resize(Ops& ops, int64_t rows, int64_t cols, absl::Status* status) {
    const int64_t needed = rows * cols * static_cast<int64_t>(sizeof(float));
    if (memory_ == nullptr || needed > memory_->size_bytes()) {
      // A little more, so that slowly growing batches settle.
      absl::StatusOr<std::unique_ptr<Memory>> memory =
          ops.Allocate(needed + needed / 4);
      status->Update(memory.status());
      if (!memory.ok()) return Tensor::F32(nullptr, 0, cols);
      memory_ = *std::move(memory);
    }
    return Tensor::F32(static_cast<float*>(memory_->data()), rows, cols);
  }

 private:
  std::unique_ptr<Memory> memory_;
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

LinearPart Part(const LayerWeights& weights,
                const ResidentVectors::Layer& vectors, int64_t layer,
                Projection p) {
  const size_t i = static_cast<size_t>(p);
  return {{static_cast<int32_t>(layer), p},
          weights.linears[i].get(),
          vectors.biases[i]};
}

std::array<LinearPart, 3> Qkv(const LayerWeights& weights,
                              const ResidentVectors::Layer& vectors,
                              int64_t layer) {
  return {Part(weights, vectors, layer, Projection::kQ),
          Part(weights, vectors, layer, Projection::kK),
          Part(weights, vectors, layer, Projection::kV)};
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

Epilogue ResidualRmsNorm(Tensor residual, NormId id, const float* weight,
                         float eps) {
  Epilogue epilogue;
  epilogue.kind = Epilogue::Kind::kResidualRmsNorm;
  epilogue.residual = residual;
  epilogue.norm_id = id;
  epilogue.norm_weight = weight;
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

  // Writes the angles of the rows to cos and sin, wherever they lie.
  void FillAngles(std::span<const SequenceRows> sequences, Tensor cos_out,
                  Tensor sin_out, Ops& ops, Stream& stream) {
    if (ops.is_on_host()) {
      return rope.Fill(sequences, cos_out.f32(0), sin_out.f32(0));
    }
    const size_t count = static_cast<size_t>(cos_out.rows * cos_out.cols);
    std::vector<float> cosines(count), sines(count);
    rope.Fill(sequences, cosines.data(), sines.data());
    const int64_t bytes = static_cast<int64_t>(count * sizeof(float));
    ops.CopyIn(cosines.data(), cos_out.data, bytes, stream);
    ops.CopyIn(sines.data(), sin_out.data, bytes, stream);
  }

  RopeTable rope;
  ResidentVectors vectors;
  absl::Status vectors_status;
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
      workspace_(std::make_unique<Workspace>(model.config())) {
  absl::StatusOr<ResidentVectors> vectors = ResidentVectors::Create(model, ops);
  workspace_->vectors_status = vectors.status();
  if (vectors.ok()) workspace_->vectors = *std::move(vectors);
}

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
  status_ = w.vectors_status;
  const auto resize = [&](ScratchMatrix& matrix, int64_t r, int64_t cols) {
    return matrix.Resize(ops_, r, cols, &status_);
  };
  const Tensor logits = resize(w.logits, logit_rows, config.vocab_size);
  if (!batch.block_copies.empty()) {
    for (int64_t i = 0; i < config.num_layers; ++i) {
      ops_.KvCopy(pool_.layer(i), batch.block_copies, stream);
    }
  }
  if (rows == 0) return logits;

  const Tensor residual = resize(w.residual, rows, config.hidden_size);
  const Tensor x = resize(w.x, rows, config.hidden_size);
  const Tensor q = resize(w.q, rows, config.q_dim());
  const Tensor attention = resize(w.attention, rows, config.q_dim());
  const Tensor mlp = resize(w.mlp, rows, config.intermediate_size);
  const Tensor cos = resize(w.cos, rows, config.head_dim / 2);
  const Tensor sin = resize(w.sin, rows, config.head_dim / 2);
  const Tensor last = resize(w.last, logit_rows, config.hidden_size);
  if (!status_.ok()) return Tensor::F32(nullptr, 0, config.vocab_size);
  w.FillAngles(batch.sequences, cos, sin, ops_, stream);

  ops_.EmbedGroup(model_.embedding(), batch.tokens, batch.lora, residual,
                  stream);
  ops_.NormGroup(residual, {0, NormId::Kind::kInput},
                 w.vectors.layer(0).input_norm, eps, batch.lora, /*heads=*/1, x,
                 stream);

  const LinearPart lm_head{LinearId::LmHead(), &model_.lm_head()};
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const LayerWeights& layer = model_.layer(i);
    const PagedKvView kv = pool_.layer(i);
    const int64_t window = config.sliding_window[static_cast<size_t>(i)];
    const ResidentVectors::Layer& vectors = w.vectors.layer(i);
    const int32_t index = static_cast<int32_t>(i);
    const bool is_last = i + 1 == config.num_layers;
    const float* const next_norm =
        is_last ? w.vectors.final_norm() : w.vectors.layer(i + 1).input_norm;
    const NormId next_norm_id =
        is_last ? NormId::Final() : NormId{index + 1, NormId::Kind::kInput};
    const auto part = [&](Projection p) { return Part(layer, vectors, i, p); };

    RopeKvAppend rope;
    rope.cos = cos.f32(0);
    rope.sin = sin.f32(0);
    rope.q_norm = vectors.q_norm;
    rope.k_norm = vectors.k_norm;
    rope.q_norm_id = {index, NormId::Kind::kQ};
    rope.k_norm_id = {index, NormId::Kind::kK};
    rope.eps = eps;
    rope.kv = kv;
    rope.sequences = batch.sequences;
    Epilogue rope_kv_append;
    rope_kv_append.kind = Epilogue::Kind::kRopeKvAppend;
    rope_kv_append.rope = &rope;
    const std::array qkv = Qkv(layer, vectors, i);
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
                        vectors.post_norm, eps),
        x, stream);

    Epilogue silu_mul;
    silu_mul.kind = Epilogue::Kind::kSiluMul;
    const std::array down = {part(Projection::kDown)};
    WillRead(ops_, down, batch.lora, rows);
    ops_.LinearGroup(x, gate_up, batch.lora, silu_mul, mlp, stream);

    if (is_last) {
      WillRead(ops_, std::span(&lm_head, 1), batch.lora, rows);
    } else {
      WillRead(ops_, Qkv(model_.layer(i + 1), w.vectors.layer(i + 1), i + 1),
               batch.lora, rows);
    }
    ops_.LinearGroup(mlp, down, batch.lora,
                     ResidualRmsNorm(residual, next_norm_id, next_norm, eps), x,
                     stream);
  }

  if (logit_rows == 0) return logits;
  ops_.GatherRows(x, batch.logit_rows, last, stream);
  ops_.LinearGroup(last, std::span(&lm_head, 1),
                   LogitSegments(batch.lora, batch.logit_rows), Epilogue(),
                   logits, stream);
  return logits;
}

}  // namespace lorikeet
