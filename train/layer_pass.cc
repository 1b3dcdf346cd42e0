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

namespace lorikeet {
namespace {

// A norm by head is one over rows of head_dim numbers.
Tensor ByHead(Tensor t, int64_t head_dim) {
  return Tensor::F32(t.f32(0), t.rows * t.cols / head_dim, head_dim);
}

void Copy(ConstTensor from, Tensor to) {
  for (int64_t i = 0; i < from.rows; ++i) {
    std::copy_n(from.f32(i), from.cols, to.f32(i));
  }
}

}  // namespace

int64_t LayerTape::SizeBytes(const TrainModel& model, int64_t rows) {
  const ModelConfig& c = model.config();
  int64_t floats = 2 * c.q_dim() + 2 * c.kv_dim() + c.num_heads +
                   c.hidden_size + 2 * c.intermediate_size;
  if (c.qk_norm) floats += c.q_dim() + c.kv_dim();
  for (const TrainLinear& linear : model.layers().back().linears) {
    if (linear.lora == nullptr) continue;
    floats += linear.lora->rank();
    if (linear.lora->is_dora()) floats += linear.weight.out_dim();
  }
  return rows * floats * static_cast<int64_t>(sizeof(float));
}

LayerPass::LayerPass(const TrainModel& model, TrainOps& train, Ops& ops)
    : config_(model.config()), train_(train), ops_(ops), linear_(train, ops) {}

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
  const Tensor q = tape.q.Resize(n, config_.q_dim());
  const Tensor k = tape.k.Resize(n, config_.kv_dim());
  const Tensor v = tape.v.Resize(n, config_.kv_dim());
  const auto linear = [&](Projection p, Tensor y) {
    LinearTape& own = tape.linears[static_cast<size_t>(p)];
    linear_.Forward(layer[p], x, rows.dropout, is_trained ? &own : nullptr, y,
                    stream);
  };
  linear(Projection::kQ, q);
  linear(Projection::kK, k);
  linear(Projection::kV, v);
  const int64_t d = config_.head_dim;
  if (layer.q_norm.weight != nullptr) {
    Copy(q, tape.q_raw.Resize(n, q.cols));
    Copy(k, tape.k_raw.Resize(n, k.cols));
    RmsNorm(ByHead(q, d), layer.q_norm, ByHead(q, d), stream);
    RmsNorm(ByHead(k, d), layer.k_norm, ByHead(k, d), stream);
  }
  ops_.Rope(q, d, rows.cos.f32(0), rows.sin.f32(0), stream);
  ops_.Rope(k, d, rows.cos.f32(0), rows.sin.f32(0), stream);
  train_.Attention(q, k, v, rows.sequences, HeadsOf(layer),
                   tape.attention.Resize(n, config_.q_dim()),
                   tape.lse.Resize(n, config_.num_heads), stream);
}

void LayerPass::Forward(const TrainLayer& layer, const LayerRows& rows,
                        ConstTensor residual, bool is_trained, LayerTape& tape,
                        Tensor output, Stream& stream) {
  const int64_t n = residual.rows;
  ForwardAttention(layer, rows, residual, is_trained, tape, stream);
  const auto linear = [&](Projection p, ConstTensor x, Tensor y) {
    LinearTape& own = tape.linears[static_cast<size_t>(p)];
    linear_.Forward(layer[p], x, rows.dropout, is_trained ? &own : nullptr, y,
                    stream);
  };
  const Tensor middle = tape.middle.Resize(n, config_.hidden_size);
  linear(Projection::kO, tape.attention.view(), middle);
  ops_.ResidualAdd(residual, middle, stream);
  const Tensor x = normed_.Resize(n, config_.hidden_size);
  RmsNorm(middle, layer.post_norm, x, stream);
  const Tensor gate = tape.gate.Resize(n, config_.intermediate_size);
  const Tensor up = tape.up.Resize(n, config_.intermediate_size);
  linear(Projection::kGate, x, gate);
  linear(Projection::kUp, x, up);
  // A tape that is filled again lacks only what `down` has on it.
  const TrainLora* lora = layer[Projection::kDown].lora.get();
  if (output.data == nullptr && lora == nullptr) return;
  const Tensor mlp = mlp_.Resize(n, config_.intermediate_size);
  ops_.SiluMul(gate, up, mlp, stream);
  if (output.data == nullptr) {
    linear(Projection::kDown, mlp, lora->is_dora() ? x : Tensor());
    return;
  }
  linear(Projection::kDown, mlp, output);
  ops_.ResidualAdd(middle, output, stream);
}

void LayerPass::BackwardMlp(const TrainLayer& layer, const LayerRows& rows,
                            const LayerTape& tape, Tensor gradient,
                            Stream& stream) {
  const int64_t n = gradient.rows;
  const Tensor gate = tape.gate.view();
  const Tensor up = tape.up.view();
  const auto linear = [&](Projection p, ConstTensor x, Tensor dy,
                          bool accumulate, Tensor dx) {
    linear_.Backward(layer[p], x, rows.dropout,
                     tape.linears[static_cast<size_t>(p)], dy, accumulate, dx,
                     stream);
  };
  const Tensor mlp = mlp_.Resize(n, config_.intermediate_size);
  ops_.SiluMul(gate, up, mlp, stream);
  // The backward pass of a linear may change its dy.
  const Tensor dy = output_gradient_.Resize(n, config_.hidden_size);
  Copy(gradient, dy);
  const Tensor dup = up_gradient_.Resize(n, config_.intermediate_size);
  linear(Projection::kDown, mlp, dy, false, dup);
  const Tensor dgate = gate_gradient_.Resize(n, config_.intermediate_size);
  train_.SiluMulBackward(gate, up, dup, dgate, dup, stream);
  const Tensor x = normed_.Resize(n, config_.hidden_size);
  RmsNorm(tape.middle.view(), layer.post_norm, x, stream);
  const Tensor dx = normed_gradient_.Resize(n, config_.hidden_size);
  linear(Projection::kGate, x, dgate, false, dx);
  linear(Projection::kUp, x, dup, true, dx);
  RmsNormBackward(tape.middle.view(), layer.post_norm, dx, true, gradient,
                  stream);
}

void LayerPass::BackwardAttention(const TrainLayer& layer,
                                  const LayerRows& rows, ConstTensor residual,
                                  const LayerTape& tape, Tensor gradient,
                                  bool wants_input, Stream& stream) {
  const int64_t n = gradient.rows;
  const int64_t d = config_.head_dim;
  const auto linear = [&](Projection p, ConstTensor x, Tensor dy,
                          bool accumulate, Tensor dx) {
    linear_.Backward(layer[p], x, rows.dropout,
                     tape.linears[static_cast<size_t>(p)], dy, accumulate, dx,
                     stream);
  };
  const Tensor dy = output_gradient_.Resize(n, config_.hidden_size);
  Copy(gradient, dy);
  const Tensor dattention = attention_gradient_.Resize(n, config_.q_dim());
  linear(Projection::kO, tape.attention.view(), dy, false, dattention);
  const Tensor dq = dq_.Resize(n, config_.q_dim());
  const Tensor dk = dk_.Resize(n, config_.kv_dim());
  const Tensor dv = dv_.Resize(n, config_.kv_dim());
  train_.AttentionBackward(tape.q.view(), tape.k.view(), tape.v.view(),
                           tape.attention.view(), tape.lse.view(), dattention,
                           rows.sequences, HeadsOf(layer), dq, dk, dv, stream);
  ops_.Rope(dq, d, rows.cos.f32(0), rows.minus_sin.f32(0), stream);
  ops_.Rope(dk, d, rows.cos.f32(0), rows.minus_sin.f32(0), stream);
  if (layer.q_norm.weight != nullptr) {
    RmsNormBackward(ByHead(tape.q_raw.view(), d), layer.q_norm, ByHead(dq, d),
                    false, ByHead(dq, d), stream);
    RmsNormBackward(ByHead(tape.k_raw.view(), d), layer.k_norm, ByHead(dk, d),
                    false, ByHead(dk, d), stream);
  }
  const Tensor x = normed_.Resize(n, config_.hidden_size);
  RmsNorm(residual, layer.input_norm, x, stream);
  const Tensor dx =
      wants_input ? normed_gradient_.Resize(n, config_.hidden_size) : Tensor();
  linear(Projection::kQ, x, dq, false, dx);
  linear(Projection::kK, x, dk, true, dx);
  linear(Projection::kV, x, dv, true, dx);
  if (!wants_input) return;
  RmsNormBackward(residual, layer.input_norm, dx, true, gradient, stream);
}

void LayerPass::Backward(const TrainLayer& layer, const LayerRows& rows,
                         ConstTensor residual, const LayerTape& tape,
                         Tensor gradient, bool wants_input, Stream& stream) {
  BackwardMlp(layer, rows, tape, gradient, stream);
  BackwardAttention(layer, rows, residual, tape, gradient, wants_input, stream);
}

}  // namespace lorikeet
