// The linears of one input, their adapters and what follows, composed of the
// launches of the primitives: x is rounded once, shrink and expand are one
// launch each for all linears of the group. What else adapters change is in
// overrides.cc.

#include <array>
#include <optional>

#include "base/check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/tensors.h"

namespace lorikeet::cuda {
namespace {

Tensor ScratchTensor(int64_t rows, int64_t cols, CudaStream& stream) {
  return Tensor::F32(stream.ScratchOf<float>(rows * cols), rows, cols);
}

LoraPlan PlanGroup(std::span<const LinearPart> parts, const LoraBatch& lora) {
  std::array<std::optional<LinearId>, kMaxLoraParts> linears;
  CHECK_LE(parts.size(), linears.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].adaptable) linears[i] = parts[i].id;
  }
  return PlanLora(std::span(linears).first(parts.size()), lora);
}

}  // namespace

void CudaOps::AddLora(Rows<const Bf16> x, const LoraPlan& plan,
                      std::span<const Tensor> y, CudaStream& stream) {
  if (plan.empty()) return;
  CudaStream::Scope scope(stream);
  const int64_t pieces = (x.cols + kShrinkSplit - 1) / kShrinkSplit;
  const LoraTermArgs* const terms = stream.Upload(plan.terms);
  const ShrinkTile* const shrink = stream.Upload(plan.shrink);
  const ExpandTile* const expand = stream.Upload(plan.expand);
  float* const partials = stream.ScratchOf<float>(pieces * plan.v_size);
  if (!stream.ok()) return;
  stream.Check(cuda::LoraShrink(x, terms, shrink,
                                static_cast<int64_t>(plan.shrink.size()),
                                partials, plan.v_size, stream.get()),
               "LoRA shrink");
  ExpandArgs args;
  args.terms = terms;
  args.tiles = expand;
  args.tile_count = static_cast<int64_t>(plan.expand.size());
  args.partials = partials;
  args.pieces = static_cast<int32_t>(pieces);
  args.v_size = plan.v_size;
  args.part_count = static_cast<int32_t>(y.size());
  for (size_t i = 0; i < y.size(); ++i) args.y[i] = RowsOf(y[i]);
  stream.Check(cuda::LoraExpand(args, stream.get()), "LoRA expand");
}

void CudaOps::LoraShrink(LinearId id, const LoraBatch& lora, ConstTensor x,
                         float* v, Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  const std::optional<LinearId> linear = id;
  const LoraPlan plan = PlanLora(std::span(&linear, 1), lora);
  if (plan.empty()) return;
  const Rows<const Bf16> rounded = RoundedToBf16(x, s);
  const int64_t pieces = (x.cols + kShrinkSplit - 1) / kShrinkSplit;
  const LoraTermArgs* const terms = s.Upload(plan.terms);
  const ShrinkTile* const tiles = s.Upload(plan.shrink);
  float* const partials = s.ScratchOf<float>(pieces * plan.v_size);
  if (!s.ok()) return;
  s.Check(cuda::LoraShrink(rounded, terms, tiles,
                           static_cast<int64_t>(plan.shrink.size()), partials,
                           plan.v_size, s.get()),
          "LoRA shrink");
  s.Check(LoraReduce(partials, pieces, plan.v_size, v, s.get()), "LoRA reduce");
}

void CudaOps::LoraExpand(LinearId id, const LoraBatch& lora, const float* v,
                         Tensor y, Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  const std::optional<LinearId> linear = id;
  const LoraPlan plan = PlanLora(std::span(&linear, 1), lora);
  if (plan.empty()) return;
  ExpandArgs args;
  args.terms = s.Upload(plan.terms);
  args.tiles = s.Upload(plan.expand);
  args.tile_count = static_cast<int64_t>(plan.expand.size());
  args.partials = v;
  args.pieces = 1;
  args.v_size = plan.v_size;
  args.y[0] = RowsOf(y);
  args.part_count = 1;
  if (!s.ok()) return;
  s.Check(cuda::LoraExpand(args, s.get()), "LoRA expand");
}

void CudaOps::LoraLookup(LinearId id, const LoraBatch& lora,
                         std::span<const Token> tokens, float* v,
                         Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  const std::optional<LinearId> linear = id;
  const LoraPlan plan = PlanLora(std::span(&linear, 1), lora);
  if (plan.empty()) return;
  const LoraTermArgs* const terms = s.Upload(plan.terms);
  const ShrinkTile* const tiles = s.Upload(plan.shrink);
  const int32_t* const ids = s.Upload(tokens);
  if (!s.ok()) return;
  s.Check(
      cuda::LoraLookup(ids, terms, tiles,
                       static_cast<int64_t>(plan.shrink.size()), v, s.get()),
      "LoRA lookup");
}

void CudaOps::Finish(const Epilogue& epilogue, const LoraBatch& lora,
                     std::span<const Tensor> y, Tensor out,
                     CudaStream& stream) {
  switch (epilogue.kind) {
    case Epilogue::Kind::kStore:
      return;
    case Epilogue::Kind::kRopeKvAppend: {
      CHECK_EQ(y.size(), size_t{3});
      const RopeKvAppend& rope = *epilogue.rope;
      const int64_t head_dim = rope.kv.head_dim;
      const float* const norms[] = {rope.q_norm, rope.k_norm};
      const NormId ids[] = {rope.q_norm_id, rope.k_norm_id};
      for (size_t i = 0; i < 2; ++i) {
        if (norms[i] != nullptr) {
          NormGroup(y[i], ids[i], norms[i], rope.eps, lora,
                    y[i].cols / head_dim, y[i], stream);
        }
        Rope(y[i], head_dim, rope.cos, rope.sin, stream);
      }
      KvAppend(y[1], y[2], rope.kv, rope.sequences, stream);
      stream.Check(
          cuda::GatherRows(RowsOf(y[0]), nullptr, RowsOf(out), stream.get()),
          "copying q");
      return;
    }
    case Epilogue::Kind::kSiluMul:
      CHECK_EQ(y.size(), size_t{2});
      return SiluMul(y[0], y[1], out, stream);
    case Epilogue::Kind::kResidual:
    case Epilogue::Kind::kResidualRmsNorm:
      CHECK_EQ(y.size(), size_t{1});
      ResidualAdd(y[0], epilogue.residual, stream);
      if (epilogue.kind == Epilogue::Kind::kResidual) return;
      return NormGroup(epilogue.residual, epilogue.norm_id,
                       epilogue.norm_weight, epilogue.eps, lora, /*heads=*/1,
                       out, stream);
  }
}

void CudaOps::LinearGroup(ConstTensor x, std::span<const LinearPart> parts,
                          const LoraBatch& lora, const Epilogue& epilogue,
                          Tensor out, Stream& stream) {
  if (x.rows == 0) return;
  if (epilogue.kind == Epilogue::Kind::kStore &&
      parts.size() > size_t{kMaxLoraParts}) {  // more than a launch takes
    const int64_t cols = parts[0].weight->out_dim();
    LinearGroup(x, parts.first(1), lora, epilogue, out.Cols(0, cols), stream);
    return LinearGroup(x, parts.subspan(1), lora, epilogue,
                       out.Cols(cols, out.cols - cols), stream);
  }
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  std::vector<Tensor> y;
  int64_t begin = 0;
  for (const LinearPart& part : parts) {
    const int64_t cols = part.weight->out_dim();
    y.push_back(epilogue.kind == Epilogue::Kind::kStore
                    ? out.Cols(begin, cols)
                    : ScratchTensor(x.rows, cols, s));
    begin += cols;
  }
  if (epilogue.kind == Epilogue::Kind::kStore) CHECK_EQ(begin, out.cols);
  const Rows<const Bf16> rounded = RoundedToBf16(x, s);
  if (!s.ok()) return;
  std::vector<Overrides> overrides(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].adaptable) {
      overrides[i] = SplitRows(lora, parts[i].id, x.rows);
    }
    Products(rounded, parts[i], overrides[i], y[i], s);
  }
  if (!lora.empty()) AddLora(rounded, PlanGroup(parts, lora), y, s);
  for (size_t i = 0; i < parts.size(); ++i) {
    FinishOverrides(rounded, parts[i], overrides[i], y[i], s);
  }
  Finish(epilogue, lora, y, out, s);
}

}  // namespace lorikeet::cuda
