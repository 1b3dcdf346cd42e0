// `lorikeet train --dry-run`: what training would take, side by side for LoRA
// and for all weights.

#ifndef LORIKEET_CLI_TRAIN_ESTIMATE_H_
#define LORIKEET_CLI_TRAIN_ESTIMATE_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "kernels/dtype.h"
#include "train/training_options.h"

namespace lorikeet {

// Prints the table for `dir`/config.json; weights are not read and need not be
// there. `dtype` is the frozen base's, nullopt: as config.json says.
//
// Errors: NOT_FOUND; as ModelConfig::Parse; INVALID_ARGUMENT naming a module
// that does not exist.
absl::Status PrintTrainingEstimate(const std::string& dir,
                                   const TrainingOptions& options,
                                   std::optional<DType> dtype);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_TRAIN_ESTIMATE_H_
