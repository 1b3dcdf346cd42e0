#include "cli/train_progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "absl/strings/str_format.h"
#include "cli/progress_bar.h"

namespace lorikeet {
namespace {

// Weight of the past in the loss that is shown.
constexpr double kMemory = 0.9;
// Between two lines where there is no terminal.
constexpr absl::Duration kLineInterval = absl::Seconds(5);

std::string Time(absl::Duration d) {
  const int64_t seconds = absl::ToInt64Seconds(d);
  return absl::StrFormat("%d:%02d", seconds / 60, seconds % 60);
}

}  // namespace

TrainProgress::TrainProgress(const TrainingJob& job, const Clock& clock)
    : job_(job),
      clock_(clock),
      is_terminal_(::isatty(STDERR_FILENO) == 1),
      first_step_(job.steps_done()),
      shown_steps_(job.history().steps.size()),
      shown_evals_(job.history().evals.size()),
      last_(clock.Now()) {}

double TrainProgress::tokens_per_second() const {
  const double seconds = absl::ToDoubleSeconds(training_);
  return seconds > 0 ? static_cast<double>(tokens_) / seconds : 0;
}

void TrainProgress::Update() {
  const absl::Duration now = clock_.Now();
  const TrainingHistory& history = job_.history();
  const bool has_step = history.steps.size() > shown_steps_;
  const bool was_evaluation = history.evals.size() > shown_evals_ ||
                              (job_.is_evaluating() && !has_step);
  if (!was_evaluation) training_ += now - last_;
  last_ = now;
  if (has_step) {
    shown_steps_ = history.steps.size();
    ShowStep(history.steps.back());
  }
  if (history.evals.size() > shown_evals_) {
    shown_evals_ = history.evals.size();
    ShowEval(history.evals.back());
  }
}

void TrainProgress::ShowStep(const StepReport& step) {
  tokens_ += step.tokens;
  mean_loss_ = mean_loss_ == 0
                   ? step.loss
                   : kMemory * mean_loss_ + (1 - kMemory) * step.loss;
  const bool is_last = step.step == job_.num_steps();
  if (!is_terminal_ && !is_last && last_ - shown_at_ < kLineInterval) return;
  shown_at_ = last_;
  const double done = static_cast<double>(step.step - first_step_);
  const absl::Duration left =
      training_ / done * static_cast<double>(job_.num_steps() - step.step);
  const double share =
      static_cast<double>(step.step) / static_cast<double>(job_.num_steps());
  absl::FPrintF(stderr, "%s[%s] step %d/%d  loss %.4f  %.0f tokens/s  ETA %s%s",
                is_terminal_ ? "\r\033[K" : "", ProgressBar(share), step.step,
                job_.num_steps(), mean_loss_, tokens_per_second(), Time(left),
                is_terminal_ ? "" : "\n");
  std::fflush(stderr);
}

void TrainProgress::ShowEval(const EvalPoint& eval) {
  absl::FPrintF(stderr, "%sstep %d: eval loss %.4f, exact match %.1f %%\n",
                is_terminal_ ? "\r\033[K" : "", eval.step, eval.loss,
                100 * eval.exact_match);
}

void TrainProgress::Finish() {
  if (is_terminal_) std::fputs("\n", stderr);
}

}  // namespace lorikeet
