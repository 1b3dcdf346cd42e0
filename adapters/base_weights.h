// BaseWeights are the weights of the resident base model as adapters need them:
// to compute DoRA's gains, to add to biases, to merge, to compare copies with.
//
// Thread-safe: only reads.

#ifndef LORIKEET_ADAPTERS_BASE_WEIGHTS_H_
#define LORIKEET_ADAPTERS_BASE_WEIGHTS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/linear_id.h"
#include "kernels/ops.h"
#include "model/model.h"

namespace lorikeet {

class BaseWeights {
 public:
  // Both must outlive this.
  BaseWeights(const Model& model, const Ops& ops)
      : model_(&model), ops_(&ops) {}

  const Model& model() const { return *model_; }
  const Ops& ops() const { return *ops_; }

  // [out, in]; of kEmbedTokens and kLmHead [vocab, hidden].
  const PackedWeight& weight(LinearId id) const;
  // [out], empty if the linear has none.
  const std::vector<float>& bias(LinearId id) const;

  // Rows [row_begin, row_begin + out.rows) of W + sum_i scale_i B_i A_i, see
  // Ops::MergeRows.
  void MergeRows(LinearId id, std::span<const MergeTerm> terms,
                 int64_t row_begin, Tensor out) const {
    ops_->MergeRows(weight(id), terms, row_begin, out);
  }
  // True if `copy` [vocab, hidden], rounded to the dtype that the weight is
  // kept in, has the same values.
  bool IsEqual(LinearId id, ConstTensor copy) const;

 private:
  const Model* model_;
  const Ops* ops_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_BASE_WEIGHTS_H_
