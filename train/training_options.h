// TrainingOptions are everything that decides a job's result, as the user gave
// it; they go into training.json and into checkpoints.
//
// Plain data.

#ifndef LORIKEET_TRAIN_TRAINING_OPTIONS_H_
#define LORIKEET_TRAIN_TRAINING_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "adapters/peft_config.h"
#include "base/json.h"
#include "kernels/dtype.h"
#include "train/schedule.h"

namespace lorikeet {

enum class TrainingMethod { kLora, kFull };

struct TrainingOptions {
  TrainingMethod method = TrainingMethod::kLora;

  // kLora.
  int64_t rank = 8;
  double alpha = 16;
  std::vector<std::string> target_modules = {"all-linear"};
  bool use_rslora = false;
  bool use_dora = false;
  double dropout = 0;

  double learning_rate = 1e-3;
  int64_t warmup_steps = 0;
  Schedule::Decay decay = Schedule::Decay::kLinear;
  double weight_decay = 0;
  double clip_norm = 1;  // 0: any

  int64_t batch_size = 8;             // examples of a batch
  int64_t gradient_accumulation = 1;  // batches of a step
  int64_t token_budget = 512;         // tokens of one pass, and of an example
  int64_t steps = 0;                  // 0: as `epochs` says
  int64_t epochs = 0;                 // 0: as `steps` says
  uint64_t seed = 0;
  bool learn_all = false;  // also prompts
  // That the TrainOps of the job was made with: kF32 or kBF16.
  DType compute_dtype = DType::kF32;

  int64_t examples_per_step() const {
    return batch_size * gradient_accumulation;
  }

  // Errors: INVALID_ARGUMENT naming option, value and limits.
  absl::Status Check() const;

  // As adapter_config.json has it. REQUIRES: kLora.
  PeftConfig Peft() const;

  Json ToJson() const;
  // Errors: INVALID_ARGUMENT naming the member if it is not what ToJson gave.
  static absl::StatusOr<TrainingOptions> FromJson(const Json& json);
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_TRAINING_OPTIONS_H_
