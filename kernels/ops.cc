#include "kernels/ops.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/train_ops.h"

namespace lorikeet {
namespace {

// Rows of its own memory, so that heads can be viewed as rows.
struct Owned {
  Buffer bytes;
  Tensor view;
};

ConstTensor RowsOf(ConstTensor x, int64_t begin, int64_t end) {
  return ConstTensor(
      static_cast<const char*>(x.data) + begin * x.stride * SizeBytes(x.dtype),
      x.dtype, end - begin, x.cols, x.stride);
}

std::span<const Token> SubSpan(std::span<const Token> tokens, int64_t begin,
                               int64_t end) {
  return tokens.subspan(static_cast<size_t>(begin),
                        static_cast<size_t>(end - begin));
}

Owned NewRows(int64_t rows, int64_t cols) {
  Owned owned{Buffer(rows * cols * static_cast<int64_t>(sizeof(float))), {}};
  owned.view = Tensor::F32(owned.bytes.as<float>(), rows, cols);
  return owned;
}

// Rows [begin, end) of x W^T + bias, with the weight and the bias that they
// have; where there is a gain the bias waits for it.
void Product(Ops& ops, ConstTensor x, const LinearPart& part,
             const LoraSlot::Override* o, int64_t begin, int64_t end, Tensor y,
             Stream& stream) {
  const PackedWeight* weight = part.weight;
  const float* bias = part.bias;
  if (o != nullptr && o->weight != nullptr) weight = o->weight.get();
  if (o != nullptr && !o->bias.empty()) bias = o->bias.data();
  if (o != nullptr && !o->gain.empty()) bias = nullptr;
  ops.Gemm(RowsOf(x, begin, end), *weight, bias, y.Rows(begin, end - begin),
           stream);
}

void LowRank(Ops& ops, ConstTensor x, LinearId id, const LoraBatch& lora,
             Tensor y, Stream& stream) {
  const int64_t size = LoraLayout(id, lora, nullptr);
  if (size == 0) return;
  const Buffer v(size * static_cast<int64_t>(sizeof(float)));
  ops.LoraShrink(id, lora, x, v.as<float>(), stream);
  ops.LoraExpand(id, lora, v.as<float>(), y, stream);
}

void Gain(Ops& ops, const LoraSlot::Override& o, const float* base_bias,
          Tensor y, Stream& stream) {
  if (o.gain.empty()) return;
  ops.ScaleColumns(o.gain.data(), o.bias.empty() ? base_bias : o.bias.data(), y,
                   stream);
}

// One linear with all that adapters change of it.
void Linear(Ops& ops, ConstTensor x, const LinearPart& part,
            const LoraBatch& lora, Tensor y, Stream& stream) {
  if (lora.empty() || !part.adaptable) {
    return ops.Gemm(x, *part.weight, part.bias, y, stream);
  }
  const auto ranges = SplitRows(lora, part.id, x.rows);
  if (ranges.empty()) {
    ops.Gemm(x, *part.weight, part.bias, y, stream);
    return LowRank(ops, x, part.id, lora, y, stream);
  }
  for (const auto& range : ranges) {
    Product(ops, x, part, range.value, range.row_begin, range.row_end, y,
            stream);
  }
  LowRank(ops, x, part.id, lora, y, stream);
  for (const auto& [begin, end, o] : ranges) {
    if (o == nullptr) continue;
    const Tensor rows = y.Rows(begin, end - begin);
    Gain(ops, *o, part.bias, rows, stream);
    if (o->rows == nullptr) continue;
    const Owned replaced = NewRows(end - begin, o->rows->out_dim());
    ops.Gemm(RowsOf(x, begin, end), *o->rows, nullptr, replaced.view, stream);
    ops.ScatterColumns(replaced.view, o->replaced, rows, stream);
  }
}

void RopeAndAppend(Ops& ops, const RopeKvAppend& rope, const LoraBatch& lora,
                   Tensor q, Tensor k, Tensor v, Stream& stream) {
  const int64_t head_dim = rope.kv.head_dim;
  if (rope.q_norm != nullptr) {
    ops.NormGroup(q, rope.q_norm_id, rope.q_norm, rope.eps, lora,
                  q.cols / head_dim, q, stream);
  }
  if (rope.k_norm != nullptr) {
    ops.NormGroup(k, rope.k_norm_id, rope.k_norm, rope.eps, lora,
                  k.cols / head_dim, k, stream);
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

std::unique_ptr<PackedLora> Ops::PackLoraInt8(ConstTensor, ConstTensor) {
  CHECK(false && "a backend without adapters in 8 bits");
  return nullptr;
}

std::unique_ptr<PackedWeight> Ops::NewWeight(int64_t, int64_t, DType) {
  return nullptr;
}

void Ops::Merge(const PackedWeight&, std::span<const MergeTerm>, const float*,
                int64_t, int64_t, PackedWeight&, Stream&) {
  CHECK(false && "a backend without NewWeight has no Merge");
}

absl::StatusOr<std::unique_ptr<TrainOps>> Ops::NewTrainOps() {
  return absl::UnimplementedError(
      absl::StrCat("backend ", Name(), " has no operators of training"));
}

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

std::unique_ptr<PackedWeight> Ops::RestoreWeight(int64_t, int64_t, DType,
                                                 absl::string_view) {
  return nullptr;
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
      RopeAndAppend(*this, *epilogue.rope, lora, y[0].view, y[1].view,
                    y[2].view, stream);
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
      NormGroup(epilogue.residual, epilogue.norm_id, epilogue.norm_weight,
                epilogue.eps, lora, /*heads=*/1, out, stream);
      break;
  }
}

void Ops::EmbedGroup(const PackedWeight& table, std::span<const Token> tokens,
                     const LoraBatch& lora, Tensor y, Stream& stream) {
  const LinearId id = LinearId::EmbedTokens();
  const auto ranges = SplitRows(lora, id, y.rows);
  if (ranges.empty()) Embed(table, tokens, y, stream);
  for (const auto& [begin, end, o] : ranges) {
    const bool has_own = o != nullptr && o->weight != nullptr;
    Embed(has_own ? *o->weight : table, SubSpan(tokens, begin, end),
          y.Rows(begin, end - begin), stream);
    if (o == nullptr || o->rows == nullptr) continue;
    for (int64_t i = begin; i < end; ++i) {
      const auto it =
          std::ranges::lower_bound(o->replaced, tokens[static_cast<size_t>(i)]);
      if (it == o->replaced.end() || *it != tokens[static_cast<size_t>(i)]) {
        continue;
      }
      const Token row = static_cast<Token>(it - o->replaced.begin());
      Embed(*o->rows, {&row, 1}, y.Rows(i, 1), stream);
    }
  }
  if (const int64_t size = LoraLayout(id, lora, nullptr); size > 0) {
    const Buffer v(size * static_cast<int64_t>(sizeof(float)));
    LoraLookup(id, lora, tokens, v.as<float>(), stream);
    LoraExpand(id, lora, v.as<float>(), y, stream);
  }
  for (const auto& [begin, end, o] : ranges) {
    if (o == nullptr) continue;
    Gain(*this, *o, nullptr, y.Rows(begin, end - begin), stream);
  }
}

void Ops::NormGroup(ConstTensor x, NormId id, const float* weight, float eps,
                    const LoraBatch& lora, int64_t heads, Tensor y,
                    Stream& stream) {
  const auto norm = [&](int64_t begin, int64_t end, const float* w) {
    const int64_t rows = end - begin;
    ConstTensor in = RowsOf(x, begin, end);
    Tensor out = y.Rows(begin, rows);
    if (heads > 1) {
      CHECK(x.stride == x.cols && y.stride == y.cols);
      in = ConstTensor(in.f32(0), in.dtype, rows * heads, x.cols / heads,
                       x.cols / heads);
      out = Tensor::F32(out.f32(0), rows * heads, y.cols / heads);
    }
    RmsNorm(in, w, eps, out, stream);
  };
  const auto ranges = SplitRows(lora, id, y.rows);
  if (ranges.empty()) return norm(0, y.rows, weight);
  for (const auto& [begin, end, own] : ranges) {
    norm(begin, end, own == nullptr ? weight : own);
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
