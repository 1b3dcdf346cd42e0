#include "adapters/dora.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace lorikeet {
namespace {

// Rows that are merged at once: few, so that they stay in cache.
constexpr int64_t kRows = 32;

struct OwnedMatrix {
  Buffer bytes;
  ConstTensor view;
};

OwnedMatrix Transposed(ConstTensor m) {
  OwnedMatrix result{Buffer(m.rows * m.cols * SizeBytes(m.dtype)), {}};
  for (int64_t i = 0; i < m.rows; ++i) {
    for (int64_t j = 0; j < m.cols; ++j) {
      StoreElement(m.dtype, result.bytes.data(), j * m.rows + i, m.At(i, j));
    }
  }
  result.view =
      ConstTensor(result.bytes.data(), m.dtype, m.cols, m.rows, m.rows);
  return result;
}

// Squares of the norms: of rows, or of columns for the embedding.
absl::StatusOr<std::vector<double>> SquaredNorms(const LoraModule& module,
                                                 const BaseWeights& base,
                                                 Ops& ops) {
  const bool by_column = module.id == LinearId::EmbedTokens();
  const PackedWeight& weight = base.weight(module.id);
  ASSIGN_OR_RETURN(const std::unique_ptr<PackedLora> lora,
                   PackForTable(module, ops));
  const MergeTerm term{lora.get(), static_cast<float>(module.scaling)};
  const int64_t cols = weight.in_dim();
  std::vector<double> squares(
      static_cast<size_t>(by_column ? cols : weight.out_dim()));
  const Buffer bytes(kRows * cols * static_cast<int64_t>(sizeof(float)));
  for (int64_t begin = 0; begin < weight.out_dim(); begin += kRows) {
    const int64_t rows = std::min(kRows, weight.out_dim() - begin);
    const Tensor merged = Tensor::F32(bytes.as<float>(), rows, cols);
    base.MergeRows(module.id, {&term, 1}, begin, merged);
    for (int64_t i = 0; i < rows; ++i) {
      const float* row = merged.f32(i);
      for (int64_t k = 0; k < cols; ++k) {
        const double value = static_cast<double>(row[k]);
        squares[static_cast<size_t>(by_column ? k : begin + i)] +=
            value * value;
      }
    }
  }
  return squares;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PackedLora>> PackForTable(
    const LoraModule& module, Ops& ops) {
  std::unique_ptr<PackedLora> packed;
  if (module.id != LinearId::EmbedTokens()) {
    packed = PackModule(module, module.a, module.b, ops);
  } else {
    const OwnedMatrix a = Transposed(module.b);
    const OwnedMatrix b = Transposed(module.a);
    packed = PackModule(module, a.view, b.view, ops);
  }
  if (packed != nullptr) return packed;
  return absl::ResourceExhaustedError(
      absl::StrCat(module.name, " does not fit into the device's memory"));
}

absl::StatusOr<std::vector<float>> DoraGain(const LoraModule& module,
                                            const BaseWeights& base, Ops& ops) {
  CHECK(module.magnitude.data != nullptr);
  ASSIGN_OR_RETURN(const std::vector<double> squares,
                   SquaredNorms(module, base, ops));
  std::vector<float> gain(squares.size());
  for (size_t i = 0; i < gain.size(); ++i) {
    const double norm = std::sqrt(squares[i]);
    gain[i] = static_cast<float>(module.magnitude.f32(0)[i] / norm);
    if (!std::isfinite(gain[i])) {
      return absl::InvalidArgumentError(absl::StrCat(
          "lora_magnitude_vector of ", module.name, ": output ", i,
          " of the merged weight has norm ", norm, ", no gain can be found"));
    }
  }
  return gain;
}

}  // namespace lorikeet
