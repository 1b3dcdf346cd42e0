#include "kernels/ops.h"

#include "base/check.h"

namespace lorikeet {
namespace {

// Rows of its own memory, so that heads can be viewed as rows.
struct Owned {
  Buffer bytes;
  Tensor view;
};

Owned NewRows(int64_t rows, int64_t cols) {
  Owned owned{Buffer(rows * cols * static_cast<int64_t>(sizeof(float))), {}};
  owned.view = Tensor::F32(owned.bytes.as<float>(), rows, cols);
  return owned;
}

// y = x W^T + b, then y += LoRA of every segment.
void Linear(Ops& ops, ConstTensor x, const LinearPart& part,
            const LoraBatch& lora, Tensor y, Stream& stream) {
  ops.Gemm(x, *part.weight, part.bias, y, stream);
  if (lora.empty() || !part.adaptable) return;
  const int64_t size = LoraLayout(part.id, lora, nullptr);
  if (size == 0) return;
  const Buffer v(size * static_cast<int64_t>(sizeof(float)));
  ops.LoraShrink(part.id, lora, x, v.as<float>(), stream);
  ops.LoraExpand(part.id, lora, v.as<float>(), y, stream);
}

Tensor AsHeads(Tensor x, int64_t head_dim) {
  return Tensor::F32(x.f32(0), x.rows * (x.cols / head_dim), head_dim);
}

void RopeAndAppend(Ops& ops, const RopeKvAppend& rope, Tensor q, Tensor k,
                   Tensor v, Stream& stream) {
  const int64_t head_dim = rope.kv.head_dim;
  if (rope.q_norm != nullptr) {
    const Tensor heads = AsHeads(q, head_dim);
    ops.RmsNorm(heads, rope.q_norm, rope.eps, heads, stream);
  }
  if (rope.k_norm != nullptr) {
    const Tensor heads = AsHeads(k, head_dim);
    ops.RmsNorm(heads, rope.k_norm, rope.eps, heads, stream);
  }
  ops.Rope(q, head_dim, rope.cos, rope.sin, stream);
  ops.Rope(k, head_dim, rope.cos, rope.sin, stream);
  ops.KvAppend(k, v, rope.kv, rope.sequences, stream);
}

void CopyRows(ConstTensor from, Tensor to) {
  for (int64_t i = 0; i < from.rows; ++i) {
    std::memcpy(to.f32(i), from.f32(i),
                static_cast<size_t>(from.cols) * sizeof(float));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Memory>> Ops::Allocate(int64_t size_bytes) {
  return std::make_unique<HostMemory>(size_bytes);
}

void Ops::CopyIn(const void* host, void* memory, int64_t size_bytes, Stream&) {
  if (size_bytes > 0) {
    std::memcpy(memory, host, static_cast<size_t>(size_bytes));
  }
}

void Ops::CopyOut(const void* memory, void* host, int64_t size_bytes, Stream&) {
  if (size_bytes > 0) {
    std::memcpy(host, memory, static_cast<size_t>(size_bytes));
  }
}

void Ops::LinearGroup(ConstTensor x, std::span<const LinearPart> parts,
                      const LoraBatch& lora, const Epilogue& epilogue,
                      Tensor out, Stream& stream) {
  const int64_t rows = x.rows;
  if (rows == 0) return;
  if (epilogue.kind == Epilogue::Kind::kStore) {
    int64_t begin = 0;
    for (const LinearPart& part : parts) {
      const int64_t cols = part.weight->out_dim();
      Linear(*this, x, part, lora, out.Cols(begin, cols), stream);
      begin += cols;
    }
    CHECK_EQ(begin, out.cols);
    return;
  }
  std::vector<Owned> y;
  for (const LinearPart& part : parts) {
    y.push_back(NewRows(rows, part.weight->out_dim()));
    Linear(*this, x, part, lora, y.back().view, stream);
  }
  switch (epilogue.kind) {
    case Epilogue::Kind::kStore:
      break;
    case Epilogue::Kind::kRopeKvAppend:
      CHECK_EQ(y.size(), size_t{3});
      RopeAndAppend(*this, *epilogue.rope, y[0].view, y[1].view, y[2].view,
                    stream);
      CopyRows(y[0].view, out);
      break;
    case Epilogue::Kind::kSiluMul:
      CHECK_EQ(y.size(), size_t{2});
      SiluMul(y[0].view, y[1].view, out, stream);
      break;
    case Epilogue::Kind::kResidual:
    case Epilogue::Kind::kResidualRmsNorm:
      CHECK_EQ(y.size(), size_t{1});
      ResidualAdd(y[0].view, epilogue.residual, stream);
      if (epilogue.kind == Epilogue::Kind::kResidual) break;
      RmsNorm(epilogue.residual, epilogue.norm_weight, epilogue.eps, out,
              stream);
      break;
  }
}

int64_t LoraLayout(LinearId id, const LoraBatch& lora,
                   std::vector<int64_t>* offsets) {
  if (offsets != nullptr) offsets->clear();
  int64_t total = 0;
  for (const LoraSegment& segment : lora.segments) {
    for (const LoraTerm& term : segment.terms) {
      const LoraSlot::Entry* entry = term.slot->Find(id);
      if (offsets != nullptr) {
        offsets->push_back(entry == nullptr ? -1 : total);
      }
      if (entry == nullptr) continue;
      total += (segment.row_end - segment.row_begin) * entry->weights->rank();
    }
  }
  return total;
}

}  // namespace lorikeet
