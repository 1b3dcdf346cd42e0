// A TrainProgress shows on stderr how far a training job is: a bar that
// rewrites its line on a terminal, else a line now and then.
//
// One thread.

#ifndef LORIKEET_CLI_TRAIN_PROGRESS_H_
#define LORIKEET_CLI_TRAIN_PROGRESS_H_

#include <cstdint>

#include "absl/time/time.h"
#include "base/clock.h"
#include "train/training_job.h"

namespace lorikeet {

class TrainProgress {
 public:
  // Both outlive this.
  TrainProgress(const TrainingJob& job, const Clock& clock);

  // After a slice: shows what is new.
  void Update();
  // Ends the line.
  void Finish();

  // Of training since the start of this process, evaluations left out.
  double tokens_per_second() const;

 private:
  void ShowStep(const StepReport& step);
  void ShowEval(const EvalPoint& eval);

  const TrainingJob& job_;
  const Clock& clock_;
  const bool is_terminal_;
  const int64_t first_step_;
  size_t shown_steps_;
  size_t shown_evals_;
  absl::Duration last_;      // when the previous slice ended
  absl::Duration training_;  // time in steps
  absl::Duration shown_at_;
  int64_t tokens_ = 0;
  double mean_loss_ = 0;  // running
};

}  // namespace lorikeet

#endif  // LORIKEET_CLI_TRAIN_PROGRESS_H_
