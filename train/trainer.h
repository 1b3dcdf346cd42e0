// A Trainer does optimizer steps on a TrainModel: passes over a step's batches,
// whose gradients add up, then clipping and AdamW.
//
// A step is a sequence of slices of bounded work; its result does not depend on
// where the caller pauses, on how its sequences are cut into batches beyond
// rounding, or on threads at all. Everything that a later step depends on is in
// the model's ParameterSet and the number of the step.
//
// Thread-compatible: one thread.

#ifndef LORIKEET_TRAIN_TRAINER_H_
#define LORIKEET_TRAIN_TRAINER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "kernels/train_ops.h"
#include "train/batch_pass.h"
#include "train/schedule.h"
#include "train/train_model.h"
#include "train/train_sequence.h"

namespace lorikeet {

// Batches of one step, at most.
inline constexpr int64_t kMaxBatchesOfStep = 4096;

struct TrainerOptions {
  Schedule schedule;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;  // of every trained tensor, decoupled
  double clip_norm = 1;     // largest norm of a step's gradient; 0 = any
  double dropout = 0;       // of the low-rank parts' input
  uint64_t seed = 0;        // of dropout
  BatchPassOptions passes;
};

// What one step did.
struct StepReport {
  int64_t step = 0;  // from 1
  double loss = 0;   // mean over the step's targets, before its update
  double learning_rate = 0;
  double gradient_norm = 0;  // before clipping
  int64_t tokens = 0;
  int64_t targets = 0;
};

// Losses over sequences that are not trained on.
struct EvalReport {
  double loss_sum = 0;
  int64_t targets = 0;
  int64_t exact = 0;  // sequences that greedy decoding gets right
  int64_t sequences = 0;

  double loss() const {
    return targets == 0 ? 0 : loss_sum / static_cast<double>(targets);
  }
  double exact_match() const {
    return sequences == 0
               ? 0
               : static_cast<double>(exact) / static_cast<double>(sequences);
  }
};

class Trainer {
 public:
  // All outlive this. `steps_done` > 0: goes on after so many steps.
  Trainer(TrainModel& model, TrainOps& train, Ops& ops, Stream& stream,
          const TrainerOptions& options, int64_t steps_done = 0);
  // RESOURCE_EXHAUSTED naming the bytes, if there was no memory for its
  // batches: nothing may be begun then.
  const absl::Status& status() const { return pass_.status(); }

  int64_t steps_done() const { return steps_done_; }
  const TrainerOptions& options() const { return options_; }

  // Begins the next step. Its loss is the mean over all targets of all batches,
  // which are read until the step is done. REQUIRES: no step is under way; a
  // target; at most kMaxBatchesOfStep batches; options().schedule.steps >
  // steps_done().
  void BeginStep(std::vector<TrainBatch> batches);
  // Does the next slice and waits for it. Returns true when the step is done;
  // then report() is its report.
  //
  // Errors: ABORTED naming step and lines of the batch if loss or gradient is
  // not finite: parameters are those before the step. INVALID_ARGUMENT if DoRA
  // finds no gain. RESOURCE_EXHAUSTED, INTERNAL: the device.
  absl::StatusOr<bool> RunSlice();
  const StepReport& report() const { return report_; }
  // The share of the step that is done, in [0, 1].
  double progress() const;

  // Evaluates a batch between two steps, in slices as a step; `batch` is read
  // until it is done. Then evaluation() has it.
  // Errors: INVALID_ARGUMENT if DoRA finds no gain; the device's.
  void BeginEvaluation(const TrainBatch& batch);
  absl::StatusOr<bool> RunEvaluationSlice();
  const EvalReport& evaluation() const { return evaluation_; }
  // All at once.
  absl::StatusOr<EvalReport> Evaluate(const TrainBatch& batch);

 private:
  void BeginBatch();
  // The gains of a next linear; returns whether all are up to date.
  absl::StatusOr<bool> HaveGains();
  // A slice of the batch; returns whether that was the last.
  absl::StatusOr<bool> RunPass();
  absl::Status CheckFinite(double value, const char* what) const;
  absl::Status Update();

  TrainModel& model_;
  TrainOps& train_;
  const TrainerOptions options_;
  Ops& ops_;
  Stream& stream_;
  BatchPass pass_;
  int64_t steps_done_;
  size_t next_gains_ = 0;  // of the linears with DoRA

  std::vector<TrainBatch> batches_;
  size_t batch_ = 0;
  int64_t slices_done_ = 0, slices_ = 1;
  double loss_sum_ = 0;
  StepReport report_;
  EvalReport evaluation_;
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_TRAINER_H_
