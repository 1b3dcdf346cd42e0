// A TrainingJob goes from a base model and data files to an adapter directory:
// it plans batches, trains, evaluates, writes checkpoints and at the end the
// output, all in slices of bounded work that the caller asks for.
//
// While it runs its state lies in OUTPUT.training, locked against other jobs;
// OUTPUT appears at the end, whole, and the state is removed. A job that was
// killed goes on from its last checkpoint to the same bits.
//
// Thread-compatible: one thread.

#ifndef LORIKEET_TRAIN_TRAINING_JOB_H_
#define LORIKEET_TRAIN_TRAINING_JOB_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/state_dir.h"
#include "base/file_system.h"
#include "model/tokenizer/tokenizer.h"
#include "train/batch_plan.h"
#include "train/checkpoint_store.h"
#include "train/dataset.h"
#include "train/trainer.h"
#include "train/training_history.h"
#include "train/training_options.h"

namespace lorikeet {

// What a job runs on. All outlive it.
struct TrainingSubject {
  FileSystem& fs;
  const Model& base;
  const Tokenizer* tokenizer;  // null if the model has none
  Ops& ops;
  TrainOps& train;
};

// Where a job reads and writes, and how often; no influence on the result.
struct TrainingFiles {
  std::string data;
  std::string eval;  // "": none
  std::string output;
  bool resume = false;
  int64_t eval_steps = 50;        // 0: at the end alone
  int64_t checkpoint_steps = 50;  // 0: never
  // For activations that are kept instead of computed again; nullopt: as the
  // base's size allows.
  std::optional<int64_t> tape_bytes;
  // Rows of logits at once, for short slices; 0: some hundred.
  int64_t loss_rows = 0;
};

// The examples, read and tokenized.
struct TrainingData {
  Dataset data;
  std::optional<Dataset> eval;
};

class TrainingJob {
 public:
  // Reads the files. Does not touch the operators, so that it may run beside
  // them on another thread.
  // Errors: INVALID_ARGUMENT naming option, or file and line; NOT_FOUND.
  static absl::StatusOr<TrainingData> Read(const TrainingSubject& subject,
                                           const TrainingFiles& files,
                                           const TrainingOptions& options);
  // The same of texts, which messages call job.data and job.eval; `eval` empty:
  // none.
  static absl::StatusOr<TrainingData> Parse(const TrainingSubject& subject,
                                            const TrainingOptions& options,
                                            absl::string_view data,
                                            absl::string_view eval);
  // Reads the data, sets up the model and, with `resume`, its last checkpoint.
  //
  // Errors: INVALID_ARGUMENT naming option, file and line, or module;
  // ALREADY_EXISTS if there is an output; FAILED_PRECONDITION if another job
  // writes to it, if there is a checkpoint and no `resume`, or if base, data or
  // options are not those of the checkpoint.
  static absl::StatusOr<std::unique_ptr<TrainingJob>> Create(
      const TrainingSubject& subject, const TrainingFiles& files,
      const TrainingOptions& options);
  // The same with data that Read gave.
  static absl::StatusOr<std::unique_ptr<TrainingJob>> Create(
      const TrainingSubject& subject, const TrainingFiles& files,
      const TrainingOptions& options, TrainingData data);

  // Does the next slice. Returns true when the output is there. One that is a
  // write (is_writing()) uses files and parameters but no operators: it may run
  // on another thread.
  //
  // Errors: as Trainer::RunSlice; those of the file system: checkpoints that
  // are there stay.
  absl::StatusOr<bool> RunSlice();

  int64_t num_steps() const { return trainer_->options().schedule.steps; }
  int64_t steps_done() const { return trainer_->steps_done(); }
  bool is_evaluating() const { return stage_ == Stage::kEvaluate; }
  // The next slice writes a checkpoint or the output.
  bool is_writing() const {
    return stage_ == Stage::kSave || stage_ == Stage::kFinish;
  }
  const TrainingHistory& history() const { return history_; }
  const TrainModel& model() const { return *model_; }
  const Dataset& data() const { return data_; }

 private:
  enum class Stage { kStep, kEvaluate, kSave, kFinish, kDone };

  TrainingJob(const TrainingSubject& subject, const TrainingFiles& files,
              const TrainingOptions& options, Dataset data,
              std::optional<Dataset> eval);

  absl::Status OpenState();
  absl::Status MakeModel();
  absl::StatusOr<int64_t> Restore();
  absl::Status MakeTrainer(int64_t steps_done);
  absl::Status CheckIdentity(const Json& was, int64_t step) const;

  absl::Status StepSlice();
  absl::Status EvaluateSlice();
  absl::Status AfterStep();
  absl::Status Save();
  absl::Status WriteOutput();
  std::string StatePath() const { return files_.output + ".training"; }
  // What a checkpoint and this job must have in common.
  Json Identity() const;
  Json Record() const;

  const TrainingSubject subject_;
  const TrainingFiles files_;
  const TrainingOptions options_;
  const Dataset data_;
  const std::optional<Dataset> eval_;
  BatchPlan plan_;
  std::vector<TrainBatch> eval_batches_;
  const std::unique_ptr<Stream> stream_;
  std::unique_ptr<StateDir> state_dir_;
  std::unique_ptr<CheckpointStore> checkpoints_;
  std::unique_ptr<TrainModel> model_;
  std::unique_ptr<Trainer> trainer_;
  TrainingHistory history_;

  Stage stage_ = Stage::kStep;
  bool step_is_under_way_ = false;
  size_t next_eval_ = 0;  // the batch
  bool eval_is_under_way_ = false;
  EvalReport eval_report_;
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_TRAINING_JOB_H_
