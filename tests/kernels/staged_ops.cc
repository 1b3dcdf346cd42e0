#include "tests/kernels/staged_ops.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "tests/kernels/staged_call.h"

namespace lorikeet::testing {
namespace {

int64_t CountBlocks(std::span<const SequenceRows> sequences) {
  int32_t last = -1;
  for (const SequenceRows& s : sequences) {
    for (const int32_t block : s.block_table) last = std::max(last, block);
  }
  return last + 1;
}

}  // namespace

std::unique_ptr<PackedWeight> StagedOps::PackWeight(ConstTensor w,
                                                    DType dtype) {
  return device_->PackWeight(w, dtype);
}

std::unique_ptr<PackedLora> StagedOps::PackLora(ConstTensor a, ConstTensor b) {
  return device_->PackLora(a, b);
}

void StagedOps::MergeRows(const PackedWeight& w,
                          std::span<const MergeTerm> terms, int64_t row_begin,
                          Tensor out) const {
  device_->MergeRows(w, terms, row_begin, out);
  after_call_();
  CHECK(device_->status().ok());
}

std::unique_ptr<PackedWeight> StagedOps::NewWeight(int64_t out_dim,
                                                   int64_t in_dim,
                                                   DType dtype) {
  return device_->NewWeight(out_dim, in_dim, dtype);
}

void StagedOps::Merge(const PackedWeight& w, std::span<const MergeTerm> terms,
                      const float* gain, int64_t row_begin, int64_t row_end,
                      PackedWeight& to, Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  device_->Merge(w, terms, gain, row_begin, row_end, to, stream);
}

void StagedOps::Embed(const PackedWeight& table, std::span<const Token> tokens,
                      Tensor y, Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  device_->Embed(table, tokens, call.Out(y), stream);
}

void StagedOps::Gemm(ConstTensor x, const PackedWeight& w, const float* bias,
                     Tensor y, Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  device_->Gemm(call.In(x), w, call.In(bias, w.out_dim()), call.Out(y), stream);
}

void StagedOps::RmsNorm(ConstTensor x, const float* weight, float eps, Tensor y,
                        Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  const float* const w = call.In(weight, x.cols);
  if (x.data == y.data) {
    const Tensor both = call.InOut(y);
    return device_->RmsNorm(both, w, eps, both, stream);
  }
  device_->RmsNorm(call.In(x), w, eps, call.Out(y), stream);
}

void StagedOps::NormGroup(ConstTensor x, NormId id, const float* weight,
                          float eps, const LoraBatch& lora, int64_t heads,
                          Tensor y, Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  const float* const w = call.In(weight, x.cols / heads);
  if (x.data == y.data) {
    const Tensor both = call.InOut(y);
    return device_->NormGroup(both, id, w, eps, lora, heads, both, stream);
  }
  device_->NormGroup(call.In(x), id, w, eps, lora, heads, call.Out(y), stream);
}

void StagedOps::Rope(Tensor x, int64_t head_dim, const float* cos,
                     const float* sin, Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  const int64_t angles = x.rows * head_dim / 2;
  device_->Rope(call.InOut(x), head_dim, call.In(cos, angles),
                call.In(sin, angles), stream);
}

void StagedOps::KvAppend(ConstTensor k, ConstTensor v, const PagedKvView& kv,
                         std::span<const SequenceRows> sequences,
                         Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  device_->KvAppend(call.In(k), call.In(v),
                    call.Cache(kv, CountBlocks(sequences)), sequences, stream);
}

void StagedOps::KvCopy(const PagedKvView& kv,
                       std::span<const std::pair<int32_t, int32_t>> blocks,
                       Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  int32_t last = -1;
  for (const auto& [from, to] : blocks) last = std::max({last, from, to});
  device_->KvCopy(call.Cache(kv, last + 1), blocks, stream);
}

void StagedOps::GatherRows(ConstTensor x, std::span<const int32_t> rows,
                           Tensor y, Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  device_->GatherRows(call.In(x), rows, call.Out(y), stream);
}

void StagedOps::PagedAttention(ConstTensor q, const PagedKvView& kv,
                               std::span<const SequenceRows> sequences,
                               float scale, int64_t window, Tensor y,
                               Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  device_->PagedAttention(call.In(q), call.Cache(kv, CountBlocks(sequences)),
                          sequences, scale, window, call.Out(y), stream);
}

void StagedOps::SiluMul(ConstTensor gate, ConstTensor up, Tensor y,
                        Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  if (y.data == gate.data) {
    const ConstTensor u = call.In(up);
    const Tensor both = call.InOut(y);
    return device_->SiluMul(both, u, both, stream);
  }
  const ConstTensor g = call.In(gate);
  if (y.data == up.data) {
    const Tensor both = call.InOut(y);
    return device_->SiluMul(g, both, both, stream);
  }
  device_->SiluMul(g, call.In(up), call.Out(y), stream);
}

void StagedOps::ResidualAdd(ConstTensor x, Tensor y, Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  device_->ResidualAdd(call.In(x), call.InOut(y), stream);
}

void StagedOps::LoraShrink(LinearId id, const LoraBatch& lora, ConstTensor x,
                           float* v, Stream& stream) {
  const int64_t size = LoraLayout(id, lora, nullptr);
  if (size == 0) return;
  StagedCall call(*device_, stream, after_call_);
  const Tensor out = call.Out(Tensor::F32(v, 1, size));
  device_->LoraShrink(id, lora, call.In(x), out.f32(0), stream);
}

void StagedOps::LoraExpand(LinearId id, const LoraBatch& lora, const float* v,
                           Tensor y, Stream& stream) {
  const int64_t size = LoraLayout(id, lora, nullptr);
  if (size == 0) return;
  StagedCall call(*device_, stream, after_call_);
  device_->LoraExpand(id, lora, call.In(v, size), call.InOut(y), stream);
}

void StagedOps::LoraLookup(LinearId id, const LoraBatch& lora,
                           std::span<const Token> tokens, float* v,
                           Stream& stream) {
  const int64_t size = LoraLayout(id, lora, nullptr);
  if (size == 0) return;
  StagedCall call(*device_, stream, after_call_);
  const Tensor out = call.Out(Tensor::F32(v, 1, size));
  device_->LoraLookup(id, lora, tokens, out.f32(0), stream);
}

void StagedOps::ScaleColumns(const float* gain, const float* bias, Tensor y,
                             Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  device_->ScaleColumns(call.In(gain, y.cols), call.In(bias, y.cols),
                        call.InOut(y), stream);
}

void StagedOps::ScatterColumns(ConstTensor x, std::span<const int32_t> cols,
                               Tensor y, Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  device_->ScatterColumns(call.In(x), cols, call.InOut(y), stream);
}

void StagedOps::Sample(Tensor logits, std::span<const SamplingRow> params,
                       std::span<SampledRow> out, Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  device_->Sample(call.InOut(logits), params, out, stream);
}

void StagedOps::Logprobs(ConstTensor logits, std::span<const Token> targets,
                         int32_t num_logprobs, std::span<SampledRow> out,
                         Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  device_->Logprobs(call.In(logits), targets, num_logprobs, out, stream);
}

void StagedOps::LinearGroup(ConstTensor x, std::span<const LinearPart> parts,
                            const LoraBatch& lora, const Epilogue& epilogue,
                            Tensor out, Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  std::vector<LinearPart> staged(parts.begin(), parts.end());
  for (LinearPart& part : staged) {
    part.bias = call.In(part.bias, part.weight->out_dim());
  }
  Epilogue e = epilogue;
  RopeKvAppend rope;
  switch (epilogue.kind) {
    case Epilogue::Kind::kRopeKvAppend: {
      rope = *epilogue.rope;
      const int64_t head_dim = rope.kv.head_dim;
      rope.cos = call.In(rope.cos, x.rows * head_dim / 2);
      rope.sin = call.In(rope.sin, x.rows * head_dim / 2);
      rope.q_norm = call.In(rope.q_norm, head_dim);
      rope.k_norm = call.In(rope.k_norm, head_dim);
      rope.kv = call.Cache(rope.kv, CountBlocks(rope.sequences));
      e.rope = &rope;
      break;
    }
    case Epilogue::Kind::kResidualRmsNorm:
    case Epilogue::Kind::kResidual:
      e.residual = call.InOut(e.residual);
      e.norm_weight = call.In(e.norm_weight, e.residual.cols);
      break;
    case Epilogue::Kind::kStore:
    case Epilogue::Kind::kSiluMul:
      break;
  }
  const bool is_written = epilogue.kind != Epilogue::Kind::kResidual;
  device_->LinearGroup(call.In(x), staged, lora, e,
                       is_written ? call.Out(out) : out, stream);
}

void StagedOps::EmbedGroup(const PackedWeight& table,
                           std::span<const Token> tokens, const LoraBatch& lora,
                           Tensor y, Stream& stream) {
  StagedCall call(*device_, stream, after_call_);
  device_->EmbedGroup(table, tokens, lora, call.Out(y), stream);
}

}  // namespace lorikeet::testing
