// With x the layer's input, u its middle:
//
//   q, k, v = linears(norm(x)), normed by head in some models, rotated
//   u = x + o(attention(q, k, v))
//   y = u + down(silu(gate(norm(u))) * up(norm(u)))
//
// The backward pass walks the same lines upwards; `gradient` is dy, then du
// (dy + what comes through the second line), then dx.

#include "train/layer_pass.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "base/status.h"

namespace lorikeet {
namespace {

// A norm by head is one over rows of head_dim numbers.
Tensor ByHead(Tensor t, int64_t head_dim) {
  return Tensor::F32(t.f32(0), t.rows * t.cols / head_dim, head_dim);
}

// Calls fn(tensor of the tape, columns) for each that a layer has.
template <typename Fn>
void ForEachTensor(const ModelConfig& c, const TrainLayer& layer,
                   LayerTape& tape, const Fn& fn) {
  fn(tape.q, c.q_dim());
  fn(tape.k, c.kv_dim());
  fn(tape.v, c.kv_dim());
  if (c.qk_norm) {
    fn(tape.q_raw, c.q_dim());
    fn(tape.k_raw, c.kv_dim());
  }
  fn(tape.attention, c.q_dim());
  fn(tape.lse, c.num_heads);
  fn(tape.middle, c.hidden_size);
  fn(tape.gate, c.intermediate_size);
  fn(tape.up, c.intermediate_size);
  for (size_t p = 0; p < kNumProjections; ++p) {
    const TrainLora* lora = layer.linears[p].lora.get();
    if (lora == nullptr) continue;
    fn(tape.linears[p].shrunk, lora->rank());
    if (lora->is_dora()) {
      fn(tape.linears[p].product, layer.linears[p].weight.out_dim());
    }
  }
}

// Floats of a tape per row.
int64_t RowFloats(const ModelConfig& config, const TrainLayer& layer) {
  LayerTape tape;
  int64_t floats = 0;
  ForEachTensor(config, layer, tape,
                [&](Tensor&, int64_t cols) { floats += cols; });
  return floats;
}

}  // namespace

absl::Status LayerTape::Reserve(Ops& ops, const TrainModel& model,
                                int64_t rows) {
  return memory_.Reserve(ops, 1, SizeBytes(model, rows) / 4);
}

void LayerTape::Resize(const ModelConfig& config, const TrainLayer& layer,
                       int64_t rows) {
  float* next = memory_.Resize(1, rows * RowFloats(config, layer)).f32(0);
  for (LinearTape& linear : linears) linear = LinearTape();
  ForEachTensor(config, layer, *this, [&](Tensor& tensor, int64_t cols) {
    tensor = Tensor::F32(next, rows, cols);
    next += rows * cols;
  });
}

int64_t LayerTape::SizeBytes(const TrainModel& model, int64_t rows) {
  int64_t largest = 0;
  for (const TrainLayer& layer : model.layers()) {
    largest = std::max(largest, RowFloats(model.config(), layer));
  }
  return rows * largest * static_cast<int64_t>(sizeof(float));
}

LayerPass::LayerPass(const TrainModel& model, TrainOps& train, Ops& ops)
    : model_(model),
      config_(model.config()),
      train_(train),
      ops_(ops),
      linear_(train, ops) {}

absl::Status LayerPass::Reserve(int64_t rows, bool drops) {
  RETURN_IF_ERROR(linear_.Reserve(model_, rows, drops));
  const auto reserve = [&](int64_t cols,
                           std::initializer_list<OwnedMatrix*> of) {
    for (OwnedMatrix* matrix : of) {
      RETURN_IF_ERROR(matrix->Reserve(ops_, rows, cols));
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(reserve(config_.hidden_size,
                          {&normed_, &normed_gradient_, &output_gradient_}));
  RETURN_IF_ERROR(reserve(config_.intermediate_size,
                          {&mlp_, &gate_gradient_, &up_gradient_}));
  RETURN_IF_ERROR(reserve(config_.q_dim(), {&attention_gradient_, &dq_}));
  return reserve(config_.kv_dim(), {&dk_, &dv_});
}

void LayerPass::RmsNorm(ConstTensor x, const TrainNorm& norm, Tensor y,
                        Stream& stream) {
  ops_.RmsNorm(x, norm.weight, config_.rms_norm_eps, y, stream);
}

void LayerPass::RmsNormBackward(ConstTensor x, const TrainNorm& norm,
                                ConstTensor dy, bool accumulate, Tensor dx,
                                Stream& stream) {
  train_.RmsNormBackward(x, norm.weight, config_.rms_norm_eps, dy, accumulate,
                         dx, norm.gradient, stream);
}

AttentionHeads LayerPass::HeadsOf(const TrainLayer& layer) const {
  return {config_.num_heads, config_.num_kv_heads, config_.head_dim,
          static_cast<float>(1.0 /
                             std::sqrt(static_cast<double>(config_.head_dim))),
          layer.window};
}

void LayerPass::ForwardAttention(const TrainLayer& layer, const LayerRows& rows,
                                 ConstTensor residual, bool is_trained,
                                 LayerTape& tape, Stream& stream) {
  const int64_t n = residual.rows;
  const Tensor x = normed_.Resize(n, config_.hidden_size);
  RmsNorm(residual, layer.input_norm, x, stream);
  const auto linear = [&](Projection p, Tensor y) {
    const LinearTape& own = tape.linears[static_cast<size_t>(p)];
    linear_.Forward(layer[p], x, rows.dropout, is_trained ? &own : nullptr, y,
                    stream);
  };
  const Tensor q = tape.q;
  const Tensor k = tape.k;
  linear(Projection::kQ, q);
  linear(Projection::kK, k);
  linear(Projection::kV, tape.v);
  const int64_t d = config_.head_dim;
  if (layer.q_norm.weight != nullptr) {
    train_.Copy(q, tape.q_raw, stream);
    train_.Copy(k, tape.k_raw, stream);
    RmsNorm(ByHead(q, d), layer.q_norm, ByHead(q, d), stream);
    RmsNorm(ByHead(k, d), layer.k_norm, ByHead(k, d), stream);
  }
  ops_.Rope(q, d, rows.cos.f32(0), rows.sin.f32(0), stream);
  ops_.Rope(k, d, rows.cos.f32(0), rows.sin.f32(0), stream);
  train_.Attention(q, k, tape.v, rows.sequences, HeadsOf(layer), tape.attention,
                   tape.lse, stream);
}

void LayerPass::ForwardGateUp(const TrainLayer& layer, const LayerRows& rows,
                              ConstTensor residual, bool is_trained,
                              LayerTape& tape, Stream& stream) {
  const auto linear = [&](Projection p, ConstTensor x, Tensor y) {
    const LinearTape& own = tape.linears[static_cast<size_t>(p)];
    linear_.Forward(layer[p], x, rows.dropout, is_trained ? &own : nullptr, y,
                    stream);
  };
  linear(Projection::kO, tape.attention, tape.middle);
  ops_.ResidualAdd(residual, tape.middle, stream);
  const Tensor x = normed_.Resize(residual.rows, config_.hidden_size);
  RmsNorm(tape.middle, layer.post_norm, x, stream);
  linear(Projection::kGate, x, tape.gate);
  linear(Projection::kUp, x, tape.up);
}

void LayerPass::ForwardDown(const TrainLayer& layer, const LayerRows& rows,
                            bool is_trained, LayerTape& tape, Tensor output,
                            Stream& stream) {
  const int64_t n = tape.middle.rows;
  const LinearTape& own = tape.linears[static_cast<size_t>(Projection::kDown)];
  const auto down = [&](ConstTensor x, Tensor y) {
    linear_.Forward(layer[Projection::kDown], x, rows.dropout,
                    is_trained ? &own : nullptr, y, stream);
  };
  // A tape that is filled again lacks only what `down` has on it.
  const TrainLora* lora = layer[Projection::kDown].lora.get();
  if (output.data == nullptr && lora == nullptr) return;
  const Tensor mlp = mlp_.Resize(n, config_.intermediate_size);
  ops_.SiluMul(tape.gate, tape.up, mlp, stream);
  if (output.data == nullptr) {
    down(mlp,
         lora->is_dora() ? normed_.Resize(n, config_.hidden_size) : Tensor());
    return;
  }
  down(mlp, output);
  ops_.ResidualAdd(tape.middle, output, stream);
}

void LayerPass::Forward(int part, const TrainLayer& layer,
                        const LayerRows& rows, ConstTensor residual,
                        bool is_trained, LayerTape& tape, Tensor output,
                        Stream& stream) {
  switch (part) {
    case 0:
      tape.Resize(config_, layer, residual.rows);
      return ForwardAttention(layer, rows, residual, is_trained, tape, stream);
    case 1:
      return ForwardGateUp(layer, rows, residual, is_trained, tape, stream);
    default:
      return ForwardDown(layer, rows, is_trained, tape, output, stream);
  }
}

void LayerPass::BackwardDown(const TrainLayer& layer, const LayerRows& rows,
                             const LayerTape& tape, Tensor gradient,
                             Stream& stream) {
  const int64_t n = gradient.rows;
  const Tensor mlp = mlp_.Resize(n, config_.intermediate_size);
  ops_.SiluMul(tape.gate, tape.up, mlp, stream);
  // The backward pass of a linear may change its dy.
  const Tensor dy = output_gradient_.Resize(n, config_.hidden_size);
  train_.Copy(gradient, dy, stream);
  const Tensor dup = up_gradient_.Resize(n, config_.intermediate_size);
  linear_.Backward(layer[Projection::kDown], mlp, rows.dropout,
                   tape.linears[static_cast<size_t>(Projection::kDown)], dy,
                   /*accumulate=*/false, dup, stream);
  const Tensor dgate = gate_gradient_.Resize(n, config_.intermediate_size);
  train_.SiluMulBackward(tape.gate, tape.up, dup, dgate, dup, stream);
}

void LayerPass::BackwardGateUp(const TrainLayer& layer, const LayerRows& rows,
                               const LayerTape& tape, Tensor gradient,
                               Stream& stream) {
  const int64_t n = gradient.rows;
  const Tensor x = normed_.Resize(n, config_.hidden_size);
  RmsNorm(tape.middle, layer.post_norm, x, stream);
  const Tensor dx = normed_gradient_.Resize(n, config_.hidden_size);
  const auto linear = [&](Projection p, Tensor dy, bool accumulate) {
    linear_.Backward(layer[p], x, rows.dropout,
                     tape.linears[static_cast<size_t>(p)], dy, accumulate, dx,
                     stream);
  };
  linear(Projection::kGate, gate_gradient_.view(), false);
  linear(Projection::kUp, up_gradient_.view(), true);
  RmsNormBackward(tape.middle, layer.post_norm, dx, true, gradient, stream);
}

void LayerPass::BackwardAttention(const TrainLayer& layer,
                                  const LayerRows& rows, const LayerTape& tape,
                                  Tensor gradient, Stream& stream) {
  const int64_t n = gradient.rows;
  const int64_t d = config_.head_dim;
  const Tensor dy = output_gradient_.Resize(n, config_.hidden_size);
  train_.Copy(gradient, dy, stream);
  const Tensor dattention = attention_gradient_.Resize(n, config_.q_dim());
  linear_.Backward(layer[Projection::kO], tape.attention, rows.dropout,
                   tape.linears[static_cast<size_t>(Projection::kO)], dy,
                   /*accumulate=*/false, dattention, stream);
  const Tensor dq = dq_.Resize(n, config_.q_dim());
  const Tensor dk = dk_.Resize(n, config_.kv_dim());
  const Tensor dv = dv_.Resize(n, config_.kv_dim());
  train_.AttentionBackward(tape.q, tape.k, tape.v, tape.attention, tape.lse,
                           dattention, rows.sequences, HeadsOf(layer), dq, dk,
                           dv, stream);
  ops_.Rope(dq, d, rows.cos.f32(0), rows.minus_sin.f32(0), stream);
  ops_.Rope(dk, d, rows.cos.f32(0), rows.minus_sin.f32(0), stream);
  if (layer.q_norm.weight == nullptr) return;
  RmsNormBackward(ByHead(tape.q_raw, d), layer.q_norm, ByHead(dq, d), false,
                  ByHead(dq, d), stream);
  RmsNormBackward(ByHead(tape.k_raw, d), layer.k_norm, ByHead(dk, d), false,
                  ByHead(dk, d), stream);
}

void LayerPass::BackwardQkv(const TrainLayer& layer, const LayerRows& rows,
                            ConstTensor residual, const LayerTape& tape,
                            Tensor gradient, bool wants_input, Stream& stream) {
  const int64_t n = gradient.rows;
  const Tensor x = normed_.Resize(n, config_.hidden_size);
  RmsNorm(residual, layer.input_norm, x, stream);
  const Tensor dx =
      wants_input ? normed_gradient_.Resize(n, config_.hidden_size) : Tensor();
  const auto linear = [&](Projection p, const OwnedMatrix& dy,
                          bool accumulate) {
    linear_.Backward(layer[p], x, rows.dropout,
                     tape.linears[static_cast<size_t>(p)], dy.view(),
                     accumulate, dx, stream);
  };
  linear(Projection::kQ, dq_, false);
  linear(Projection::kK, dk_, true);
  linear(Projection::kV, dv_, true);
  if (!wants_input) return;
  RmsNormBackward(residual, layer.input_norm, dx, true, gradient, stream);
}

void LayerPass::Backward(int part, const TrainLayer& layer,
                         const LayerRows& rows, ConstTensor residual,
                         const LayerTape& tape, Tensor gradient,
                         bool wants_input, Stream& stream) {
  switch (part) {
    case 0:
      return BackwardDown(layer, rows, tape, gradient, stream);
    case 1:
      return BackwardGateUp(layer, rows, tape, gradient, stream);
    case 2:
      return BackwardAttention(layer, rows, tape, gradient, stream);
    default:
      return BackwardQkv(layer, rows, residual, tape, gradient, wants_input,
                         stream);
  }
}

}  // namespace lorikeet
