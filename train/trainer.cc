#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status.h"

namespace lorikeet {
namespace {

// Added to the norm before dividing by it, as PyTorch's clip_grad_norm_ does.
constexpr double kClipEps = 1e-6;

int64_t NumTokens(const TrainBatch& batch) {
  int64_t sum = 0;
  for (const TrainSequence* s : batch) sum += s->size();
  return sum;
}

int64_t NumTargets(const TrainBatch& batch) {
  int64_t sum = 0;
  for (const TrainSequence* s : batch) sum += s->num_targets();
  return sum;
}

BatchPassOptions PassesOf(const TrainerOptions& options) {
  BatchPassOptions passes = options.passes;
  passes.drops = options.dropout > 0;
  return passes;
}

}  // namespace

Trainer::Trainer(TrainModel& model, TrainOps& train, Ops& ops, Stream& stream,
                 const TrainerOptions& options, int64_t steps_done)
    : model_(model),
      train_(train),
      options_(options),
      ops_(ops),
      stream_(stream),
      pass_(model, train, ops, stream, PassesOf(options)),
      steps_done_(steps_done) {}

void Trainer::BeginStep(std::vector<TrainBatch> batches) {
  CHECK(batch_ == batches_.size());
  CHECK_LT(steps_done_, options_.schedule.steps);
  CHECK_LE(static_cast<int64_t>(batches.size()), kMaxBatchesOfStep);
  batches_ = std::move(batches);
  batch_ = 0;
  loss_sum_ = 0;
  slices_done_ = 0;
  slices_ = 1;
  report_ = StepReport();
  report_.step = steps_done_ + 1;
  report_.learning_rate = options_.schedule.At(report_.step);
  for (const TrainBatch& batch : batches_) {
    const int64_t targets = NumTargets(batch);
    report_.tokens += NumTokens(batch);
    report_.targets += targets;
    slices_ += pass_.SlicesOf(targets);
  }
  CHECK_GT(report_.targets, 0);
  model_.parameters().ClearGradients(train_, stream_);
}

double Trainer::progress() const {
  return static_cast<double>(slices_done_) / static_cast<double>(slices_);
}

absl::StatusOr<bool> Trainer::HaveGains() {
  if (next_gains_ == model_.num_dora()) return true;
  RETURN_IF_ERROR(model_.RefreshGains(next_gains_, ops_, train_, stream_));
  return ++next_gains_ == model_.num_dora();
}

absl::StatusOr<bool> Trainer::RunPass() {
  const bool is_done = pass_.RunSlice();
  RETURN_IF_ERROR(stream_.Sync());
  return is_done;
}

void Trainer::BeginBatch() {
  const DropoutSource dropout{
      options_.seed,
      static_cast<uint64_t>(report_.step * kMaxBatchesOfStep) + batch_,
      static_cast<float>(options_.dropout)};
  const double scale = 1.0 / static_cast<double>(report_.targets);
  pass_.Begin(batches_[batch_], static_cast<float>(scale), dropout);
}

absl::StatusOr<bool> Trainer::RunSlice() {
  ASSIGN_OR_RETURN(const bool have_gains, HaveGains());
  if (!have_gains) return false;
  ++slices_done_;
  if (batch_ == batches_.size()) {
    RETURN_IF_ERROR(Update());
    return true;
  }
  if (!pass_.is_under_way()) BeginBatch();
  ASSIGN_OR_RETURN(const bool is_done, RunPass());
  if (!is_done) return false;
  loss_sum_ += pass_.loss_sum();
  if (absl::Status status = CheckFinite(pass_.loss_sum(), "loss");
      !status.ok()) {
    batch_ = batches_.size();
    return status;
  }
  ++batch_;
  return false;
}

absl::Status Trainer::CheckFinite(double value, const char* what) const {
  if (std::isfinite(value)) return absl::OkStatus();
  std::vector<int64_t> lines;
  for (size_t i = 0; i < batches_.size(); ++i) {
    // A loss is known to be that of one batch.
    if (batch_ < batches_.size() && i != batch_) continue;
    for (const TrainSequence* s : batches_[i]) lines.push_back(s->line);
  }
  return absl::AbortedError(absl::StrCat(
      what, " of step ", report_.step, " is ", value, " in the batch of lines ",
      absl::StrJoin(lines, ", "), "; learning rate ", report_.learning_rate));
}

absl::Status Trainer::Update() {
  ParameterSet& parameters = model_.parameters();
  report_.loss = loss_sum_ / static_cast<double>(report_.targets);
  double squares = 0;
  train_.SumOfSquares(parameters.gradients(), &squares, stream_);
  RETURN_IF_ERROR(stream_.Sync());
  report_.gradient_norm = std::sqrt(squares);
  RETURN_IF_ERROR(CheckFinite(report_.gradient_norm, "gradient norm"));
  AdamWStep step;
  step.learning_rate = static_cast<float>(report_.learning_rate);
  step.beta1 = static_cast<float>(options_.beta1);
  step.beta2 = static_cast<float>(options_.beta2);
  step.eps = static_cast<float>(options_.eps);
  step.weight_decay = static_cast<float>(options_.weight_decay);
  step.step = report_.step;
  if (options_.clip_norm > 0) {
    step.gradient_scale = static_cast<float>(
        std::min(1.0, options_.clip_norm / (report_.gradient_norm + kClipEps)));
  }
  train_.AdamW(step, parameters.gradients(), parameters.values(),
               parameters.first_moments(), parameters.second_moments(),
               stream_);
  RETURN_IF_ERROR(stream_.Sync());
  next_gains_ = 0;
  ++steps_done_;
  return absl::OkStatus();
}

void Trainer::BeginEvaluation(const TrainBatch& batch) {
  CHECK(batch_ == batches_.size() && !pass_.is_under_way());
  evaluation_ = EvalReport();
  evaluation_.sequences = static_cast<int64_t>(batch.size());
  pass_.Begin(batch, 0, {});
}

absl::StatusOr<bool> Trainer::RunEvaluationSlice() {
  ASSIGN_OR_RETURN(const bool have_gains, HaveGains());
  if (!have_gains) return false;
  ASSIGN_OR_RETURN(const bool is_done, RunPass());
  if (!is_done) return false;
  evaluation_.loss_sum = pass_.loss_sum();
  evaluation_.targets = pass_.num_targets();
  evaluation_.exact = pass_.num_exact();
  return true;
}

absl::StatusOr<EvalReport> Trainer::Evaluate(const TrainBatch& batch) {
  BeginEvaluation(batch);
  for (bool is_done = false; !is_done;) {
    ASSIGN_OR_RETURN(is_done, RunEvaluationSlice());
  }
  return evaluation_;
}

}  // namespace lorikeet
