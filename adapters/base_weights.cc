#include "adapters/base_weights.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/block_int8.h"

namespace lorikeet {
namespace {

// What a row is once it was packed as `dtype`.
void RoundAs(DType dtype, std::vector<float>& row) {
  if (dtype != DType::kI8) {
    for (float& x : row) {
      float stored;
      StoreElement(dtype, &stored, 0, x);
      x = LoadElement(dtype, &stored, 0);
    }
    return;
  }
  int8_t q[kInt8Block];
  const int64_t size = static_cast<int64_t>(row.size());
  for (int64_t k = 0; k < size; k += kInt8Block) {
    const int64_t count = std::min(kInt8Block, size - k);
    float* const block = row.data() + k;
    const float scale = FloatFromF16(QuantizeWeightBlock(block, count, q));
    for (int64_t j = 0; j < count; ++j) block[j] = scale * q[j];
  }
}

}  // namespace

const PackedWeight& BaseWeights::weight(LinearId id) const {
  if (id == LinearId::EmbedTokens()) return model_->embedding();
  if (id == LinearId::LmHead()) return model_->lm_head();
  return *model_->layer(id.layer).linears[static_cast<size_t>(id.projection)];
}

const std::vector<float>& BaseWeights::bias(LinearId id) const {
  static const std::vector<float>& none = *new std::vector<float>();
  if (!id.is_of_layer()) return none;
  return model_->layer(id.layer).biases[static_cast<size_t>(id.projection)];
}

bool BaseWeights::IsEqual(LinearId id, ConstTensor copy) const {
  const PackedWeight& w = weight(id);
  CHECK(copy.rows == w.out_dim() && copy.cols == w.in_dim());
  std::vector<float> expected(static_cast<size_t>(copy.cols));
  std::vector<float> base(static_cast<size_t>(copy.cols));
  for (int64_t i = 0; i < copy.rows; ++i) {
    MergeRows(id, {}, i, Tensor::F32(base.data(), 1, copy.cols));
    for (int64_t k = 0; k < copy.cols; ++k) {
      expected[static_cast<size_t>(k)] = copy.At(i, k);
    }
    RoundAs(w.dtype(), expected);
    if (expected != base) return false;
  }
  return true;
}

}  // namespace lorikeet
