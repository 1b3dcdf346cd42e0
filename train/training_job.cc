#include "train/training_job.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "base/text.h"
#include "train/peft_writer.h"

namespace lorikeet {
namespace {

DatasetOptions ReadingOf(const TrainingSubject& subject,
                         const TrainingOptions& options) {
  const ModelConfig& config = subject.base.config();
  const bool context_is_shorter = config.max_position < options.token_budget;
  DatasetOptions reading;
  reading.tokenizer = subject.tokenizer;
  if (!subject.base.eos_tokens().empty()) {
    reading.end_token = subject.base.eos_tokens().front();
  }
  reading.vocab_size = config.vocab_size;
  reading.max_tokens =
      context_is_shorter ? config.max_position : options.token_budget;
  reading.max_tokens_of =
      context_is_shorter ? "the model's context of" : "--token-budget";
  reading.learn_all = options.learn_all;
  return reading;
}

TrainBatch All(const Dataset& data) {
  TrainBatch batch;
  for (const TrainSequence& s : data.sequences()) batch.push_back(&s);
  return batch;
}

Json DataJson(const std::string& path, const Dataset& data) {
  Json json = Json::Object();
  json.Set("path", path);
  json.Set("sha256", data.digest().ToHex());
  json.Set("examples", data.size());
  json.Set("tokens", data.num_tokens());
  return json;
}

}  // namespace

absl::StatusOr<TrainingData> TrainingJob::Read(const TrainingSubject& subject,
                                               const TrainingFiles& files,
                                               const TrainingOptions& options) {
  RETURN_IF_ERROR(options.Check());
  const DatasetOptions reading = ReadingOf(subject, options);
  ASSIGN_OR_RETURN(Dataset data,
                   Dataset::Read(subject.fs, files.data, reading));
  TrainingData all{std::move(data), std::nullopt};
  if (!files.eval.empty()) {
    ASSIGN_OR_RETURN(all.eval, Dataset::Read(subject.fs, files.eval, reading));
  }
  return all;
}

absl::StatusOr<TrainingData> TrainingJob::Parse(const TrainingSubject& subject,
                                                const TrainingOptions& options,
                                                absl::string_view data,
                                                absl::string_view eval) {
  RETURN_IF_ERROR(options.Check());
  const DatasetOptions reading = ReadingOf(subject, options);
  ASSIGN_OR_RETURN(Dataset examples, Dataset::Parse(data, "job.data", reading));
  TrainingData all{std::move(examples), std::nullopt};
  if (!eval.empty()) {
    ASSIGN_OR_RETURN(all.eval, Dataset::Parse(eval, "job.eval", reading));
  }
  return all;
}

absl::StatusOr<std::unique_ptr<TrainingJob>> TrainingJob::Create(
    const TrainingSubject& subject, const TrainingFiles& files,
    const TrainingOptions& options) {
  ASSIGN_OR_RETURN(TrainingData data, Read(subject, files, options));
  return Create(subject, files, options, std::move(data));
}

absl::StatusOr<std::unique_ptr<TrainingJob>> TrainingJob::Create(
    const TrainingSubject& subject, const TrainingFiles& files,
    const TrainingOptions& options, TrainingData data) {
  RETURN_IF_ERROR(options.Check());
  if (files.output.empty()) {
    return absl::InvalidArgumentError("--output is empty");
  }
  if (subject.fs.FileExists(files.output) ||
      subject.fs.IsDirectory(files.output)) {
    return absl::AlreadyExistsError(
        absl::StrCat(Quote(files.output), " is there already"));
  }
  auto job = std::unique_ptr<TrainingJob>(new TrainingJob(
      subject, files, options, std::move(data.data), std::move(data.eval)));
  RETURN_IF_ERROR(job->MakeModel());
  RETURN_IF_ERROR(job->OpenState());
  ASSIGN_OR_RETURN(const int64_t steps_done, job->Restore());
  RETURN_IF_ERROR(job->MakeTrainer(steps_done));
  return job;
}

TrainingJob::TrainingJob(const TrainingSubject& subject,
                         const TrainingFiles& files,
                         const TrainingOptions& options, Dataset data,
                         std::optional<Dataset> eval)
    : subject_(subject),
      files_(files),
      options_(options),
      data_(std::move(data)),
      eval_(std::move(eval)),
      plan_(data_.size(), options.examples_per_step(), options.seed),
      stream_(subject.ops.NewStream()) {
  if (eval_.has_value()) {
    eval_batches_ = PackBatches(All(*eval_), options_.token_budget);
  }
}

absl::Status TrainingJob::OpenState() {
  absl::StatusOr<std::unique_ptr<StateDir>> dir =
      StateDir::Open(subject_.fs, StatePath());
  if (!dir.ok()) {
    return Annotate(dir.status(),
                    absl::StrCat("job that writes ", Quote(files_.output)));
  }
  state_dir_ = *std::move(dir);
  checkpoints_ = std::make_unique<CheckpointStore>(subject_.fs, StatePath());
  return absl::OkStatus();
}

absl::Status TrainingJob::MakeModel() {
  if (options_.method == TrainingMethod::kFull) {
    ASSIGN_OR_RETURN(model_,
                     TrainModel::Full(subject_.base, subject_.ops, *stream_));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(
      model_, TrainModel::Lora(subject_.base, options_.Peft(), options_.seed,
                               subject_.ops, subject_.train, *stream_));
  return absl::OkStatus();
}

absl::StatusOr<int64_t> TrainingJob::Restore() {
  ASSIGN_OR_RETURN(const std::optional<int64_t> step, checkpoints_->Latest());
  if (!files_.resume) {
    if (!step.has_value()) return 0;
    return absl::FailedPreconditionError(absl::StrCat(
        Quote(StatePath()), " has a checkpoint of step ", *step,
        "; --resume goes on from there, or remove that directory"));
  }
  if (!step.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "--resume: there is no checkpoint in ", Quote(StatePath())));
  }
  ASSIGN_OR_RETURN(const Json state, checkpoints_->ReadState(*step));
  const Json* identity = state.Find("identity");
  const Json* history = state.Find("history");
  if (identity == nullptr || history == nullptr) {
    return absl::DataLossError(absl::StrCat("checkpoint of step ", *step,
                                            " has no identity or history"));
  }
  RETURN_IF_ERROR(CheckIdentity(*identity, *step));
  ASSIGN_OR_RETURN(history_, TrainingHistory::FromJson(*history));
  RETURN_IF_ERROR(checkpoints_->ReadParameters(*step, model_->parameters()));
  RETURN_IF_ERROR(model_->parameters().Upload(*stream_));
  return *step;
}

Json TrainingJob::Identity() const {
  Json json = options_.ToJson();
  json.Set("base_fingerprint", subject_.base.fingerprint().ToHex());
  json.Set("base_dtype", Name(subject_.base.dtype()));
  json.Set("device", subject_.ops.Name());
  json.Set("data_sha256", data_.digest().ToHex());
  return json;
}

absl::Status TrainingJob::CheckIdentity(const Json& was, int64_t step) const {
  const Json now = Identity();
  for (const auto& [key, value] : now.members()) {
    const Json* old = was.Find(key);
    if (old != nullptr && *old == value) continue;
    // Checkpoints of before there was a choice are the CPU's.
    const bool is_of_cpu = key == "device" && subject_.ops.is_on_host();
    if (old == nullptr && is_of_cpu) continue;
    const std::string old_text = old == nullptr ? "nothing" : old->Dump();
    return absl::FailedPreconditionError(absl::StrCat(
        "checkpoint of step ", step, " was made with ", key, " ",
        Escape(old_text, 200), ", this job has ", Escape(value.Dump(), 200)));
  }
  return absl::OkStatus();
}

absl::Status TrainingJob::MakeTrainer(int64_t steps_done) {
  TrainerOptions options;
  options.schedule.peak = options_.learning_rate;
  options.schedule.steps = options_.steps > 0
                               ? options_.steps
                               : options_.epochs * plan_.steps_per_epoch();
  options.schedule.warmup_steps = options_.warmup_steps;
  options.schedule.decay = options_.decay;
  options.weight_decay = options_.weight_decay;
  options.clip_norm = options_.clip_norm;
  options.dropout = options_.dropout;
  options.seed = options_.seed;
  options.passes = {options_.token_budget,
                    files_.tape_bytes.value_or(DefaultTapeBytes(subject_.base)),
                    files_.loss_rows};
  trainer_ = std::make_unique<Trainer>(*model_, subject_.train, subject_.ops,
                                       *stream_, options, steps_done);
  RETURN_IF_ERROR(trainer_->status());
  if (steps_done == num_steps()) stage_ = Stage::kFinish;
  return absl::OkStatus();
}

absl::StatusOr<bool> TrainingJob::RunSlice() {
  switch (stage_) {
    case Stage::kStep:
      RETURN_IF_ERROR(StepSlice());
      return false;
    case Stage::kEvaluate:
      RETURN_IF_ERROR(EvaluateSlice());
      return false;
    case Stage::kSave:
      RETURN_IF_ERROR(Save());
      return false;
    case Stage::kFinish:
      RETURN_IF_ERROR(WriteOutput());
      stage_ = Stage::kDone;
      return true;
    case Stage::kDone:
      return true;
  }
  return true;
}

absl::Status TrainingJob::StepSlice() {
  if (!step_is_under_way_) {
    TrainBatch examples;
    for (const size_t i : plan_.ExamplesOf(steps_done() + 1)) {
      examples.push_back(&data_.sequences()[i]);
    }
    trainer_->BeginStep(PackBatches(examples, options_.token_budget));
    step_is_under_way_ = true;
  }
  ASSIGN_OR_RETURN(const bool is_done, trainer_->RunSlice());
  if (!is_done) return absl::OkStatus();
  step_is_under_way_ = false;
  history_.steps.push_back(trainer_->report());
  const int64_t step = steps_done();
  const bool is_last = step == num_steps();
  const bool is_due =
      is_last || (files_.eval_steps > 0 && step % files_.eval_steps == 0);
  if (!eval_batches_.empty() && is_due) {
    stage_ = Stage::kEvaluate;
    next_eval_ = 0;
    eval_report_ = EvalReport();
    return absl::OkStatus();
  }
  return AfterStep();
}

absl::Status TrainingJob::EvaluateSlice() {
  if (!eval_is_under_way_) {
    trainer_->BeginEvaluation(eval_batches_[next_eval_]);
    eval_is_under_way_ = true;
  }
  ASSIGN_OR_RETURN(const bool is_done, trainer_->RunEvaluationSlice());
  if (!is_done) return absl::OkStatus();
  eval_is_under_way_ = false;
  const EvalReport& report = trainer_->evaluation();
  eval_report_.loss_sum += report.loss_sum;
  eval_report_.targets += report.targets;
  eval_report_.exact += report.exact;
  eval_report_.sequences += report.sequences;
  if (++next_eval_ < eval_batches_.size()) return absl::OkStatus();
  history_.evals.push_back(
      {steps_done(), eval_report_.loss(), eval_report_.exact_match()});
  return AfterStep();
}

absl::Status TrainingJob::AfterStep() {
  const int64_t step = steps_done();
  const bool is_last = step == num_steps();
  const bool is_due = files_.checkpoint_steps > 0 &&
                      (is_last || step % files_.checkpoint_steps == 0);
  stage_ = is_due ? Stage::kSave : is_last ? Stage::kFinish : Stage::kStep;
  // What writes needs no operator: it may be another thread.
  return is_writing() ? model_->parameters().Download(*stream_)
                      : absl::OkStatus();
}

absl::Status TrainingJob::Save() {
  const int64_t step = steps_done();
  Json state = Json::Object();
  state.Set("identity", Identity());
  state.Set("history", history_.ToJson());
  RETURN_IF_ERROR(checkpoints_->Save(step, state, model_->parameters()));
  stage_ = step == num_steps() ? Stage::kFinish : Stage::kStep;
  return absl::OkStatus();
}

Json TrainingJob::Record() const {
  Json base = Json::Object();
  base.Set("path", subject_.base.dir());
  base.Set("fingerprint", subject_.base.fingerprint().ToHex());
  base.Set("dtype", Name(subject_.base.dtype()));
  Json json = Json::Object();
  json.Set("options", options_.ToJson());
  json.Set("device", subject_.ops.Name());
  json.Set("base", std::move(base));
  json.Set("data", DataJson(files_.data, data_));
  if (eval_.has_value()) json.Set("eval", DataJson(files_.eval, *eval_));
  json.Set("trained_parameters", model_->parameters().size());
  json.Set("steps", num_steps());
  json.Set("first_loss", history_.steps.front().loss);
  json.Set("last_loss", history_.steps.back().loss);
  if (!history_.evals.empty()) {
    json.Set("eval_loss", history_.evals.back().loss);
    json.Set("eval_exact_match", history_.evals.back().exact_match);
  }
  return json;
}

absl::Status TrainingJob::WriteOutput() {
  FileSystem& fs = subject_.fs;
  const std::string partial = files_.output + ".partial";
  RETURN_IF_ERROR(fs.RemoveTree(partial));
  RETURN_IF_ERROR(fs.CreateDirectories(partial));
  if (options_.method == TrainingMethod::kFull) {
    RETURN_IF_ERROR(WriteTrainedModel(fs, partial, *model_));
  } else {
    RETURN_IF_ERROR(WritePeftAdapter(fs, partial, options_, *model_));
  }
  const auto write = [&](const char* name, const std::string& text) {
    return WriteFileDurably(fs, JoinPath(partial, name), text);
  };
  RETURN_IF_ERROR(write("loss.csv", history_.ToCsv()));
  RETURN_IF_ERROR(write("loss.svg", history_.ToSvg()));
  RETURN_IF_ERROR(write("training.json", Record().Dump(2) + "\n"));
  RETURN_IF_ERROR(fs.Rename(partial, files_.output));
  return fs.RemoveTree(StatePath());
}

}  // namespace lorikeet
