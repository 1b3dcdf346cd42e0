// ResidentVectors has the norms and biases of a model where a backend's
// operators read them: for host backends where the model has them, else in
// memory of the backend.
//
// The model and the backend must outlive it. Immutable.

#ifndef LORIKEET_MODEL_RESIDENT_VECTORS_H_
#define LORIKEET_MODEL_RESIDENT_VECTORS_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "model/model.h"

namespace lorikeet {

class ResidentVectors {
 public:
  // Null = the model has none.
  struct Layer {
    const float* biases[kNumProjections] = {};
    const float* input_norm = nullptr;
    const float* post_norm = nullptr;
    const float* q_norm = nullptr;
    const float* k_norm = nullptr;
  };

  // Errors: RESOURCE_EXHAUSTED if the device has no room; INTERNAL.
  static absl::StatusOr<ResidentVectors> Create(const Model& model, Ops& ops);

  const Layer& layer(int64_t i) const {
    return layers_[static_cast<size_t>(i)];
  }
  const float* final_norm() const { return final_norm_; }

 private:
  std::vector<Layer> layers_;
  const float* final_norm_ = nullptr;
  std::unique_ptr<Memory> memory_;  // null on the host
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_RESIDENT_VECTORS_H_
