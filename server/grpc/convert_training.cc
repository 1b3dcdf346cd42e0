#include "server/grpc/convert_training.h"

#include "absl/strings/str_cat.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"
#include "server/frontend/error.h"
#include "server/grpc/convert.h"

namespace lorikeet {
namespace {

constexpr int64_t kDefaultEpochs = 3;

absl::StatusOr<TrainingOptions> ToOptions(const v1::TrainOptions& in) {
  TrainingOptions o;
  if (in.has_rank()) o.rank = in.rank();
  if (in.has_alpha()) o.alpha = in.alpha();
  if (!in.target_modules().empty()) {
    o.target_modules.assign(in.target_modules().begin(),
                            in.target_modules().end());
  }
  o.use_rslora = in.use_rslora();
  o.use_dora = in.use_dora();
  o.dropout = in.dropout();
  if (in.has_learning_rate()) o.learning_rate = in.learning_rate();
  o.warmup_steps = in.warmup_steps();
  if (in.schedule() == "cosine") {
    o.decay = Schedule::Decay::kCosine;
  } else if (!in.schedule().empty() && in.schedule() != "linear") {
    return FieldError(
        "job.options.schedule",
        absl::StrCat(Quote(in.schedule()), " is none of linear and cosine"));
  }
  o.weight_decay = in.weight_decay();
  if (in.has_clip_norm()) o.clip_norm = in.clip_norm();
  if (in.has_batch_size()) o.batch_size = in.batch_size();
  if (in.has_gradient_accumulation()) {
    o.gradient_accumulation = in.gradient_accumulation();
  }
  o.token_budget = in.token_budget();
  o.steps = in.steps();
  o.epochs = in.epochs();
  if (o.steps == 0 && o.epochs == 0) o.epochs = kDefaultEpochs;
  o.seed = in.seed();
  o.learn_all = in.learn_all();
  return o;
}

void Fill(const TrainingOptions& in, v1::TrainOptions* out) {
  const auto u32 = [](int64_t n) { return static_cast<uint32_t>(n); };
  out->set_rank(u32(in.rank));
  out->set_alpha(in.alpha);
  for (const std::string& name : in.target_modules) {
    out->add_target_modules(name);
  }
  out->set_use_rslora(in.use_rslora);
  out->set_use_dora(in.use_dora);
  out->set_dropout(in.dropout);
  out->set_learning_rate(in.learning_rate);
  out->set_warmup_steps(u32(in.warmup_steps));
  out->set_schedule(in.decay == Schedule::Decay::kCosine ? "cosine" : "linear");
  out->set_weight_decay(in.weight_decay);
  out->set_clip_norm(in.clip_norm);
  out->set_batch_size(u32(in.batch_size));
  out->set_gradient_accumulation(u32(in.gradient_accumulation));
  out->set_token_budget(u32(in.token_budget));
  out->set_steps(u32(in.steps));
  out->set_epochs(u32(in.epochs));
  out->set_seed(in.seed);
  out->set_learn_all(in.learn_all);
}

DataSource ToSource(const v1::TrainingData& in) {
  return {in.local_path(), in.content()};
}

v1::TrainingJob::State StateOf(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return v1::TrainingJob::STATE_QUEUED;
    case JobState::kRunning:
      return v1::TrainingJob::STATE_RUNNING;
    case JobState::kRegistering:
      return v1::TrainingJob::STATE_REGISTERING;
    case JobState::kSucceeded:
      return v1::TrainingJob::STATE_SUCCEEDED;
    case JobState::kFailed:
      return v1::TrainingJob::STATE_FAILED;
    case JobState::kCancelled:
      return v1::TrainingJob::STATE_CANCELLED;
  }
  return v1::TrainingJob::STATE_UNSPECIFIED;
}

}  // namespace

absl::StatusOr<CreateJobInput> ToCreateJobInput(
    const v1::CreateTrainingJobRequest& in) {
  CreateJobInput out;
  ASSIGN_OR_RETURN(out.tenant, ParseTenant("parent", in.parent()));
  const v1::TrainingJob& job = in.job();
  out.adapter = job.adapter();
  ASSIGN_OR_RETURN(out.options, ToOptions(job.options()));
  out.data = ToSource(job.data());
  out.eval = ToSource(job.eval());
  if (job.has_canary()) {
    out.canary = JobCanary{job.canary().alias(), job.canary().percent()};
  }
  return out;
}

void ToProto(const JobRecord& in, v1::TrainingJob* out) {
  out->set_name(
      absl::StrCat("tenants/", in.tenant, "/", kTrainingJobs, "/", in.id));
  out->set_adapter(in.adapter);
  Fill(in.options, out->mutable_options());
  if (in.canary.has_value()) {
    out->mutable_canary()->set_alias(in.canary->alias);
    out->mutable_canary()->set_percent(in.canary->percent);
  }
  out->set_state(StateOf(in.state));
  if (!in.error.ok()) {
    out->mutable_error()->set_code(static_cast<int32_t>(in.error.code()));
    out->mutable_error()->set_reason(ReasonOf(in.error));
    out->mutable_error()->set_message(Escape(in.error.message(), 1000));
  }
  out->set_version(in.version);
  out->set_steps_done(static_cast<uint64_t>(in.steps_done));
  out->set_steps(static_cast<uint64_t>(in.num_steps));
  out->set_examples(static_cast<uint64_t>(in.examples));
  out->set_loss(in.loss);
  if (in.eval_loss.has_value()) out->set_eval_loss(*in.eval_loss);
  if (in.eval_exact_match.has_value()) {
    out->set_eval_exact_match(*in.eval_exact_match);
  }
  ToProto(in.create_time, out->mutable_create_time());
  if (in.end_time.has_value()) ToProto(*in.end_time, out->mutable_end_time());
}

}  // namespace lorikeet
