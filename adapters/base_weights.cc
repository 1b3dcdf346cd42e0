#include "adapters/base_weights.h"

#include "base/check.h"

namespace lorikeet {

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
  const Buffer row(copy.cols * static_cast<int64_t>(sizeof(float)));
  const Tensor base = Tensor::F32(row.as<float>(), 1, copy.cols);
  for (int64_t i = 0; i < copy.rows; ++i) {
    MergeRows(id, {}, i, base);
    for (int64_t k = 0; k < copy.cols; ++k) {
      float rounded;
      StoreElement(w.dtype(), &rounded, 0, copy.At(i, k));
      if (LoadElement(w.dtype(), &rounded, 0) != base.f32(0)[k]) return false;
    }
  }
  return true;
}

}  // namespace lorikeet
