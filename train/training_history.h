// A TrainingHistory is what a job has seen: the loss of every step and the
// evaluations between them. It is written as CSV and as a picture.
//
// Plain data.

#ifndef LORIKEET_TRAIN_TRAINING_HISTORY_H_
#define LORIKEET_TRAIN_TRAINING_HISTORY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/json.h"
#include "train/trainer.h"

namespace lorikeet {

struct EvalPoint {
  int64_t step = 0;  // after so many
  double loss = 0;
  double exact_match = 0;  // share of sequences, in [0, 1]
};

struct TrainingHistory {
  std::vector<StepReport> steps;  // ascending, without gap from 1
  std::vector<EvalPoint> evals;   // ascending

  // One line a step: step, loss, learning rate, norm of the gradient, tokens,
  // targets, and after an evaluation its loss and exact match.
  std::string ToCsv() const;
  // Loss over steps as an SVG picture: dots of steps, their running mean,
  // evaluations. REQUIRES: a step.
  std::string ToSvg() const;

  Json ToJson() const;
  // Errors: INVALID_ARGUMENT if it is not what ToJson gave.
  static absl::StatusOr<TrainingHistory> FromJson(const Json& json);
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_TRAINING_HISTORY_H_
