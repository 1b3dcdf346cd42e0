#include "tests/kernels/train/staged_train_ops.h"

#include "base/check.h"
#include "tests/kernels/staged_call.h"

namespace lorikeet::testing {
namespace {

TrainMatrix Staged(const TrainMatrix& w, StagedCall& call) {
  return w.packed != nullptr ? w : TrainMatrix{nullptr, call.In(w.plain)};
}

// dx that is written where dy was, or elsewhere.
Tensor StageGradient(ConstTensor* dy, bool accumulate, Tensor dx,
                     StagedCall& call) {
  const bool is_same = dx.data == dy->data;
  const Tensor to = is_same || accumulate ? call.InOut(dx) : call.Out(dx);
  *dy = is_same ? ConstTensor(to) : call.In(*dy);
  return to;
}

std::span<float> InOut(std::span<float> x, StagedCall& call) {
  return {call.InOut(x.data(), static_cast<int64_t>(x.size())), x.size()};
}
std::span<const float> In(std::span<const float> x, StagedCall& call) {
  return {call.In(x.data(), static_cast<int64_t>(x.size())), x.size()};
}

}  // namespace

StagedTrainOps::StagedTrainOps(StagedOps& ops)
    : ops_(ops), stream_(ops.NewStream()) {
  auto device = ops.device().NewTrainOps();
  CHECK(device.ok());
  device_ = *std::move(device);
}

void StagedTrainOps::Linear(ConstTensor x, const TrainMatrix& w,
                            const float* bias, Tensor y, Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->Linear(call.In(x), Staged(w, call), call.In(bias, w.out_dim()),
                  call.Out(y), *stream_);
}

void StagedTrainOps::LinearBackward(ConstTensor dy, const TrainMatrix& w,
                                    bool accumulate, Tensor dx, Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->LinearBackward(call.In(dy), Staged(w, call), accumulate,
                          accumulate ? call.InOut(dx) : call.Out(dx), *stream_);
}

void StagedTrainOps::Product(ProductForm form, float alpha, ConstTensor a,
                             ConstTensor b, bool accumulate, Tensor c,
                             Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->Product(form, alpha, call.In(a), call.In(b), accumulate,
                   accumulate ? call.InOut(c) : call.Out(c), *stream_);
}

void StagedTrainOps::MergedRowSquares(const TrainMatrix& w, ConstTensor a,
                                      ConstTensor b, float scale,
                                      std::span<double> out, Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->MergedRowSquares(Staged(w, call), call.In(a), call.In(b), scale, out,
                            *stream_);
}

void StagedTrainOps::Attention(ConstTensor q, ConstTensor k, ConstTensor v,
                               std::span<const SequenceRows> sequences,
                               const AttentionHeads& heads, Tensor y,
                               Tensor lse, Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->Attention(call.In(q), call.In(k), call.In(v), sequences, heads,
                     call.Out(y), call.Out(lse), *stream_);
}

void StagedTrainOps::AttentionBackward(ConstTensor q, ConstTensor k,
                                       ConstTensor v, ConstTensor y,
                                       ConstTensor lse, ConstTensor dy,
                                       std::span<const SequenceRows> sequences,
                                       const AttentionHeads& heads, Tensor dq,
                                       Tensor dk, Tensor dv, Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->AttentionBackward(
      call.In(q), call.In(k), call.In(v), call.In(y), call.In(lse), call.In(dy),
      sequences, heads, call.Out(dq), call.Out(dk), call.Out(dv), *stream_);
}

void StagedTrainOps::Clear(Tensor x, Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->Clear(call.Out(x), *stream_);
}

void StagedTrainOps::Copy(ConstTensor x, Tensor y, Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->Copy(call.In(x), call.Out(y), *stream_);
}

void StagedTrainOps::RmsNormBackward(ConstTensor x, const float* weight,
                                     float eps, ConstTensor dy, bool accumulate,
                                     Tensor dx, float* dweight, Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  const Tensor to = StageGradient(&dy, accumulate, dx, call);
  device_->RmsNormBackward(call.In(x), call.In(weight, x.cols), eps, dy,
                           accumulate, to, call.InOut(dweight, x.cols),
                           *stream_);
}

void StagedTrainOps::SiluMulBackward(ConstTensor gate, ConstTensor up,
                                     ConstTensor dy, Tensor dgate, Tensor dup,
                                     Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  // One of the two may be dy.
  const bool is_gate = dgate.data == dy.data;
  const Tensor shared = StageGradient(&dy, false, is_gate ? dgate : dup, call);
  const Tensor other = call.Out(is_gate ? dup : dgate);
  device_->SiluMulBackward(call.In(gate), call.In(up), dy,
                           is_gate ? shared : other, is_gate ? other : shared,
                           *stream_);
}

void StagedTrainOps::EmbedBackward(std::span<const Token> tokens,
                                   ConstTensor dy, Tensor dtable, Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->EmbedBackward(tokens, call.In(dy), call.InOut(dtable), *stream_);
}

void StagedTrainOps::AddColumnDots(ConstTensor a, ConstTensor b, float* out,
                                   Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->AddColumnDots(call.In(a), b.data == nullptr ? b : call.In(b),
                         call.InOut(out, a.cols), *stream_);
}

void StagedTrainOps::Dropout(ConstTensor x, const DropoutKey& key,
                             bool accumulate, Tensor y, Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  const Tensor to = StageGradient(&x, accumulate, y, call);
  device_->Dropout(x, key, accumulate, to, *stream_);
}

void StagedTrainOps::CrossEntropy(Tensor logits, std::span<const Token> targets,
                                  float gradient_scale,
                                  std::span<TokenLoss> out, Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->CrossEntropy(call.InOut(logits), targets, gradient_scale, out,
                        *stream_);
}

void StagedTrainOps::SumOfSquares(std::span<const float> x, double* out,
                                  Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->SumOfSquares(In(x, call), out, *stream_);
}

void StagedTrainOps::AdamW(const AdamWStep& step,
                           std::span<const float> gradient,
                           std::span<float> parameter, std::span<float> m,
                           std::span<float> v, Stream&) {
  StagedCall call(ops_.device(), *stream_, ops_.after_call());
  device_->AdamW(step, In(gradient, call), InOut(parameter, call),
                 InOut(m, call), InOut(v, call), *stream_);
}

}  // namespace lorikeet::testing
