#include "train/linear_pass.h"

#include <algorithm>

#include "base/check.h"

namespace lorikeet {
namespace {

DropoutKey KeyOf(const TrainLinear& linear, const DropoutSource& dropout) {
  // Linears of a model and passes of a job, side by side in 64 bits.
  const uint64_t index = static_cast<uint64_t>(linear.id.index());
  return {dropout.seed, dropout.pass << 24 | index, dropout.rate};
}

}  // namespace

absl::Status LinearPass::Reserve(const TrainModel& model, int64_t rows,
                                 bool drops) {
  int64_t rank = 0, in = 0, dora_out = 0;
  for (const TrainLayer& layer : model.layers()) {
    for (const TrainLinear& linear : layer.linears) {
      if (linear.lora == nullptr) continue;
      rank = std::max(rank, linear.lora->rank());
      in = std::max(in, linear.weight.in_dim());
      if (!linear.lora->is_dora()) continue;
      dora_out = std::max(dora_out, linear.weight.out_dim());
    }
  }
  RETURN_IF_ERROR(shrunk_.Reserve(ops_, rows, rank));
  RETURN_IF_ERROR(expanded_.Reserve(ops_, rows, rank));
  RETURN_IF_ERROR(sums_.Reserve(ops_, 1, dora_out));
  if (!drops) return absl::OkStatus();
  RETURN_IF_ERROR(dropped_.Reserve(ops_, rows, in));
  return through_.Reserve(ops_, rows, in);
}

ConstTensor LinearPass::Dropped(const TrainLinear& linear, ConstTensor x,
                                const DropoutSource& dropout, Stream& stream) {
  if (dropout.rate == 0) return x;
  const Tensor dropped = dropped_.Resize(x.rows, x.cols);
  train_.Dropout(x, KeyOf(linear, dropout), false, dropped, stream);
  return dropped;
}

void LinearPass::Forward(const TrainLinear& linear, ConstTensor x,
                         const DropoutSource& dropout, const LinearTape* tape,
                         Tensor y, Stream& stream) {
  const TrainLora* lora = linear.lora.get();
  const bool is_dora = lora != nullptr && lora->is_dora();
  CHECK(y.data != nullptr || !is_dora);
  if (y.data != nullptr) {
    train_.Linear(x, linear.weight, is_dora ? nullptr : linear.bias, y, stream);
  }
  if (lora == nullptr) return;
  const Tensor shrunk =
      tape != nullptr ? tape->shrunk : shrunk_.Resize(x.rows, lora->rank());
  train_.Product(ProductForm::kNT, 1, Dropped(linear, x, dropout, stream),
                 lora->a, false, shrunk, stream);
  if (y.data == nullptr) return;
  train_.Product(ProductForm::kNT, lora->scaling, shrunk, lora->b, true, y,
                 stream);
  if (!is_dora) return;
  if (tape != nullptr) train_.Copy(y, tape->product, stream);
  ops_.ScaleColumns(lora->gain.view().f32(0), linear.bias, y, stream);
}

void LinearPass::Backward(const TrainLinear& linear, ConstTensor x,
                          const DropoutSource& dropout, const LinearTape& tape,
                          Tensor dy, bool accumulate, Tensor dx,
                          Stream& stream) {
  if (linear.bias_gradient != nullptr) {
    train_.AddColumnDots(dy, {}, linear.bias_gradient, stream);
  }
  if (linear.weight_gradient.data != nullptr) {
    train_.Product(ProductForm::kTN, 1, dy, x, true, linear.weight_gradient,
                   stream);
  }
  const TrainLora* lora = linear.lora.get();
  if (lora != nullptr && lora->is_dora()) {
    const Tensor sums = sums_.Resize(1, dy.cols);
    train_.Clear(sums, stream);
    train_.AddColumnDots(dy, tape.product, sums.f32(0), stream);
    ops_.ScaleColumns(lora->inverse_norm.view().f32(0), nullptr, sums, stream);
    ops_.ResidualAdd(sums, lora->magnitude_gradient, stream);
    ops_.ScaleColumns(lora->gain.view().f32(0), nullptr, dy, stream);
  }
  if (dx.data != nullptr) {
    train_.LinearBackward(dy, linear.weight, accumulate, dx, stream);
  }
  if (lora == nullptr) return;
  train_.Product(ProductForm::kTN, lora->scaling, dy, tape.shrunk, true,
                 lora->b_gradient, stream);
  const Tensor expanded = expanded_.Resize(dy.rows, lora->rank());
  train_.Product(ProductForm::kNN, lora->scaling, dy, lora->b, false, expanded,
                 stream);
  train_.Product(ProductForm::kTN, 1, expanded,
                 Dropped(linear, x, dropout, stream), true, lora->a_gradient,
                 stream);
  if (dx.data == nullptr) return;
  if (dropout.rate == 0) {
    train_.Product(ProductForm::kNN, 1, expanded, lora->a, true, dx, stream);
    return;
  }
  const Tensor through = through_.Resize(dx.rows, dx.cols);
  train_.Product(ProductForm::kNN, 1, expanded, lora->a, false, through,
                 stream);
  train_.Dropout(through, KeyOf(linear, dropout), true, dx, stream);
}

}  // namespace lorikeet
