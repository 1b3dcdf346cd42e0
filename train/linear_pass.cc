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
  if (tape != nullptr) {
    for (int64_t i = 0; i < y.rows; ++i) {
      std::copy_n(y.f32(i), y.cols, tape->product.f32(i));
    }
  }
  ops_.ScaleColumns(lora->gain.data(), linear.bias, y, stream);
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
    const Tensor sums = gradient_.Resize(1, dy.cols);
    std::fill_n(sums.f32(0), dy.cols, 0.0f);
    train_.AddColumnDots(dy, tape.product, sums.f32(0), stream);
    for (int64_t j = 0; j < dy.cols; ++j) {
      lora->magnitude_gradient.f32(0)[j] +=
          sums.f32(0)[j] * lora->inverse_norm[static_cast<size_t>(j)];
    }
    ops_.ScaleColumns(lora->gain.data(), nullptr, dy, stream);
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
  const Tensor through = gradient_.Resize(dx.rows, dx.cols);
  train_.Product(ProductForm::kNN, 1, expanded, lora->a, false, through,
                 stream);
  train_.Dropout(through, KeyOf(linear, dropout), true, dx, stream);
}

}  // namespace lorikeet
