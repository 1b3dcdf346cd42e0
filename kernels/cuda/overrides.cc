// What adapters change beside the low-rank parts: weights, biases, gains, norms
// and rows of their own. Their vectors come from the host with each use.

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/tensors.h"

namespace lorikeet::cuda {
namespace {

using Override = LoraSlot::Override;

// Of steps that become graphs.
constexpr int64_t kMaxGraphRows = 256;

// What a row is multiplied with. Where there is a gain the bias waits for it.
struct Source {
  const PackedWeight* weight = nullptr;
  const float* bias = nullptr;                   // the base's, or
  const std::vector<float>* own_bias = nullptr;  // on the host
  friend bool operator==(const Source&, const Source&) = default;
};

Source SourceOf(const LinearPart& part, const Override* o) {
  Source source{part.weight, part.bias, nullptr};
  if (o == nullptr) return source;
  if (o->weight != nullptr) source.weight = o->weight.get();
  if (!o->bias.empty()) source = {source.weight, nullptr, &o->bias};
  if (!o->gain.empty()) source = {source.weight, nullptr, nullptr};
  return source;
}

// Rows [begin, end), each cut into `heads` rows.
template <typename T>
Rows<T> HeadRows(Rows<T> m, int64_t begin, int64_t end, int64_t heads) {
  CHECK(heads == 1 || m.stride == m.cols);
  return {m.data + begin * m.stride, (end - begin) * heads, m.cols / heads,
          heads == 1 ? m.stride : m.cols / heads};
}

}  // namespace

void CudaOps::Products(Rows<const Bf16> x, const LinearPart& part,
                       const Overrides& overrides, Tensor y,
                       CudaStream& stream) {
  if (overrides.empty()) {
    return Product(x, *part.weight, part.bias, y, stream);
  }
  for (size_t i = 0; i < overrides.size();) {
    const Source source = SourceOf(part, overrides[i].value);
    const int64_t begin = overrides[i].row_begin;
    int64_t end = begin;
    for (; i < overrides.size() && SourceOf(part, overrides[i].value) == source;
         ++i) {
      end = overrides[i].row_end;
    }
    const float* const bias = source.own_bias != nullptr
                                  ? stream.Upload(*source.own_bias)
                                  : source.bias;
    if (!stream.ok()) return;
    Product(HeadRows(x, begin, end, 1), *source.weight, bias,
            y.Rows(begin, end - begin), stream);
  }
}

void CudaOps::ApplyGain(const Override& o, const float* base_bias, Tensor y,
                        CudaStream& stream) {
  if (o.gain.empty()) return;
  const float* const gain = stream.Upload(o.gain);
  const float* const bias = o.bias.empty() ? base_bias : stream.Upload(o.bias);
  if (!stream.ok()) return;
  ScaleColumns(gain, bias, y, stream);
}

void CudaOps::FinishOverrides(Rows<const Bf16> x, const LinearPart& part,
                              const Overrides& overrides, Tensor y,
                              CudaStream& stream) {
  for (const auto& [begin, end, o] : overrides) {
    if (o == nullptr) continue;
    const Tensor rows = y.Rows(begin, end - begin);
    ApplyGain(*o, part.bias, rows, stream);
    if (o->rows == nullptr) continue;
    const Tensor replaced =
        Tensor::F32(stream.ScratchOf<float>(rows.rows * o->rows->out_dim()),
                    rows.rows, o->rows->out_dim());
    if (!stream.ok()) return;
    Product(HeadRows(x, begin, end, 1), *o->rows, nullptr, replaced, stream);
    ScatterColumns(replaced, o->replaced, rows, stream);
  }
}

// Where a row's token is replaced, its row takes that of the table.
void CudaOps::EmbedReplaced(const Override& o, std::span<const Token> tokens,
                            Tensor y, CudaStream& stream) {
  std::vector<Token> indices;
  for (const Token token : tokens) {
    const auto it = std::ranges::lower_bound(o.replaced, token);
    const bool is_replaced = it != o.replaced.end() && *it == token;
    indices.push_back(is_replaced ? static_cast<Token>(it - o.replaced.begin())
                                  : -1);
  }
  Embed(*o.rows, indices, y, stream);
}

void CudaOps::EmbedGroup(const PackedWeight& table,
                         std::span<const Token> tokens, const LoraBatch& lora,
                         Tensor y, Stream& stream) {
  const LinearId id = LinearId::EmbedTokens();
  CudaStream& s = Of(stream);
  // The begin of a step. More rows than these keep the device busy anyway.
  if (options_.graphs && y.rows <= kMaxGraphRows) s.BeginRecording();
  CudaStream::Scope scope(s);
  const Overrides overrides = SplitRows(lora, id, y.rows);
  if (overrides.empty()) Embed(table, tokens, y, stream);
  for (const auto& [begin, end, o] : overrides) {
    const std::span<const Token> some = tokens.subspan(
        static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    const Tensor rows = y.Rows(begin, end - begin);
    const bool has_own = o != nullptr && o->weight != nullptr;
    Embed(has_own ? *o->weight : table, some, rows, stream);
    if (o != nullptr && o->rows != nullptr) EmbedReplaced(*o, some, rows, s);
  }
  if (const int64_t size = LoraLayout(id, lora, nullptr); size > 0) {
    float* const v = s.ScratchOf<float>(size);
    if (!s.ok()) return;
    LoraLookup(id, lora, tokens, v, stream);
    LoraExpand(id, lora, v, y, stream);
  }
  for (const auto& [begin, end, o] : overrides) {
    if (o != nullptr) ApplyGain(*o, nullptr, y.Rows(begin, end - begin), s);
  }
}

void CudaOps::NormGroup(ConstTensor x, NormId id, const float* weight,
                        float eps, const LoraBatch& lora, int64_t heads,
                        Tensor y, Stream& stream) {
  CudaStream& s = Of(stream);
  CudaStream::Scope scope(s);
  const auto norm = [&](int64_t begin, int64_t end, const float* w) {
    s.Check(cuda::RmsNorm(HeadRows(RowsOf(x), begin, end, heads), w, eps,
                          HeadRows(RowsOf(y), begin, end, heads), s.get()),
            "RMSNorm");
  };
  const auto ranges = SplitRows(lora, id, y.rows);
  if (ranges.empty()) return norm(0, y.rows, weight);
  const size_t size = static_cast<size_t>(x.cols / heads);
  for (const auto& [begin, end, own] : ranges) {
    const float* const w =
        own == nullptr ? weight : s.Upload(std::span(own, size));
    if (!s.ok()) return;
    norm(begin, end, w);
  }
}

}  // namespace lorikeet::cuda
