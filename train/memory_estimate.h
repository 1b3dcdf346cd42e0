// What training a model takes, from its config.json alone: parameters, bytes
// of weights, gradients and optimizer state, for LoRA and for full fine-tuning.
//
// Pure.

#ifndef LORIKEET_TRAIN_MEMORY_ESTIMATE_H_
#define LORIKEET_TRAIN_MEMORY_ESTIMATE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "model/config.h"
#include "train/training_options.h"

namespace lorikeet {

// Bytes beside activations, which depend on the token budget.
struct MemoryEstimate {
  int64_t parameters = 0;  // of the model
  int64_t trained_parameters = 0;
  int64_t weight_bytes = 0;      // of the model, as it is kept
  int64_t trained_bytes = 0;     // f32 values that are trained beside them
  int64_t gradient_bytes = 0;    // f32
  int64_t optimizer_bytes = 0;   // two f32 moments
  int64_t checkpoint_bytes = 0;  // of the result, in the model's dtype

  int64_t total_bytes() const {
    return weight_bytes + trained_bytes + gradient_bytes + optimizer_bytes;
  }
  double trained_share() const {
    return static_cast<double>(trained_parameters) /
           static_cast<double>(parameters);
  }
};

// LoRA as `options` say, over a base kept in `dtype`.
// Errors: INVALID_ARGUMENT naming a module that does not exist.
absl::StatusOr<MemoryEstimate> EstimateLora(const ModelConfig& config,
                                            const TrainingOptions& options,
                                            DType dtype);

// All weights in f32, none kept in another type.
MemoryEstimate EstimateFull(const ModelConfig& config, DType dtype);

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_MEMORY_ESTIMATE_H_
