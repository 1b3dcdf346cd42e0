#include "server/training/job_runner.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

// Of lm_head's rows a slice has few: their logits take as long as a layer.
constexpr int64_t kLossRows = 8;

absl::Status NotFound(const std::string& id) {
  return WithReason(
      absl::NotFoundError(absl::StrCat("there is no training job ", Quote(id))),
      "JOB_NOT_FOUND");
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobRunner>> JobRunner::Start(
    const TrainingSubject& subject, Engine& engine, const Clock& clock,
    const Options& options, Publisher publish) {
  ASSIGN_OR_RETURN(std::unique_ptr<JobStore> store,
                   JobStore::Open(subject.fs, options.dir));
  std::unique_ptr<JobRunner> runner(new JobRunner(
      subject, engine, clock, options, std::move(store), std::move(publish)));
  engine.SetGapWork(runner.get());
  return runner;
}

JobRunner::JobRunner(const TrainingSubject& subject, Engine& engine,
                     const Clock& clock, const Options& options,
                     std::unique_ptr<JobStore> store, Publisher publish)
    : subject_(subject),
      engine_(engine),
      clock_(clock),
      options_(options),
      publish_(std::move(publish)),
      share_(options.share),
      store_(std::move(store)) {
  {
    MutexLock lock(&mu_);
    for (JobRecord& record : store_->ReadAll()) {
      if (record.state == JobState::kRunning) record.state = JobState::kQueued;
      jobs_.push_back({std::move(record)});
    }
  }
  thread_ = std::make_unique<BackgroundThread>("training", [this] { Loop(); });
}

JobRunner::~JobRunner() {
  engine_.SetGapWork(nullptr);
  {
    MutexLock lock(&mu_);
    is_ending_ = true;
    changed_.SignalAll();
  }
  thread_.reset();
}

// ---- any thread ------------------------------------------------------------

JobRunner::Job* JobRunner::Find(const std::string& id) {
  const auto it = std::ranges::find_if(
      jobs_, [&](const Job& job) { return job.record.id == id; });
  return it == jobs_.end() ? nullptr : &*it;
}

void JobRunner::End(Job& job, JobState state, const absl::Status& error) {
  job.record.state = state;
  job.record.error = error;
  job.record.end_time = clock_.WallNow();
  job.is_dirty = true;
  changed_.SignalAll();
  Log(error.ok() ? LogLevel::kInfo : LogLevel::kWarning, "training job ended",
      {{"job", job.record.id},
       {"adapter", job.record.adapter},
       {"state", Name(state)},
       {"error", std::string(error.message())}});
}

std::vector<std::string> JobRunner::Forget() {
  std::vector<std::string> forgotten;
  size_t finals = 0;
  for (const Job& job : jobs_) finals += IsFinal(job.record.state) ? 1 : 0;
  for (auto it = jobs_.begin(); finals > kMaxFinalJobs && it != jobs_.end();) {
    if (!IsFinal(it->record.state) || it->is_dirty) {
      ++it;
      continue;
    }
    forgotten.push_back(it->record.id);
    it = jobs_.erase(it);
    --finals;
  }
  return forgotten;
}

absl::Status JobRunner::CheckRoom(const JobRecord& record) const {
  size_t open = adding_.size();
  const auto refuse = [&](const std::string& who) {
    return WithReason(absl::AlreadyExistsError(absl::StrCat(
                          who, " trains adapter ", Quote(record.adapter),
                          " already, cancel it or wait for its end")),
                      "JOB_EXISTS");
  };
  for (const Job& job : jobs_) {
    if (IsFinal(job.record.state)) continue;
    ++open;
    if (job.record.tenant == record.tenant &&
        job.record.adapter == record.adapter) {
      return refuse(job.record.id);
    }
  }
  if (adding_.contains({record.tenant, record.adapter})) {
    return refuse("another job");
  }
  if (open < kMaxOpenJobs) return absl::OkStatus();
  return WithReason(
      absl::ResourceExhaustedError(absl::StrCat(
          open, " training jobs are waiting, the limit is ", kMaxOpenJobs)),
      "JOBS_FULL");
}

absl::StatusOr<JobRecord> JobRunner::Add(JobRecord record,
                                         absl::string_view data,
                                         absl::string_view eval) {
  const std::pair<std::string, std::string> who(record.tenant, record.adapter);
  std::vector<std::string> forgotten;
  {
    MutexLock lock(&mu_);
    RETURN_IF_ERROR(CheckRoom(record));
    adding_.insert(who);
    forgotten = Forget();
  }
  record.state = JobState::kQueued;
  record.create_time = clock_.WallNow();
  absl::Status created;
  {
    MutexLock lock(&store_mu_);
    for (const std::string& id : forgotten) store_->Remove(id);
    created = store_->Create(data, eval, &record);
  }
  MutexLock lock(&mu_);
  adding_.erase(who);
  RETURN_IF_ERROR(created);
  jobs_.push_back({record});
  changed_.SignalAll();
  return record;
}

absl::StatusOr<JobRecord> JobRunner::Get(const std::string& id) const {
  MutexLock lock(&mu_);
  for (const Job& job : jobs_) {
    if (job.record.id == id) return job.record;
  }
  return NotFound(id);
}

std::vector<JobRecord> JobRunner::List() const {
  MutexLock lock(&mu_);
  std::vector<JobRecord> records;
  for (const Job& job : jobs_) records.push_back(job.record);
  return records;
}

absl::StatusOr<JobRecord> JobRunner::Cancel(const std::string& id) {
  MutexLock lock(&mu_);
  Job* const job = Find(id);
  if (job == nullptr) return NotFound(id);
  switch (job->record.state) {
    case JobState::kQueued:
      if (ready_ != nullptr && ready_->id == id) ready_.reset();
      End(*job, JobState::kCancelled, absl::OkStatus());
      break;
    case JobState::kRunning:
      job->is_cancelled = true;
      engine_.Wake();
      break;
    default:
      return WithReason(absl::FailedPreconditionError(absl::StrCat(
                            id, " cannot be cancelled any more, it is ",
                            Name(job->record.state))),
                        "JOB_ENDED");
  }
  return job->record;
}

// ---- engine thread ---------------------------------------------------------

void JobRunner::AfterStep(absl::Duration step) {
  share_.AddServing(step);
  if (!share_.MayTrain()) return;
  const absl::Duration start = clock_.Now();
  if (RunPiece()) share_.AddTraining(clock_.Now() - start);
}

bool JobRunner::WhileIdle() {
  const absl::Duration start = clock_.Now();
  if (!RunPiece()) return false;
  share_.AddIdle(clock_.Now() - start);
  return true;
}

bool JobRunner::RunPiece() {
  {
    MutexLock lock(&mu_);
    if (is_writing_) return false;
  }
  if (active_ == nullptr) return Begin();
  {
    MutexLock lock(&mu_);
    Job* const job = Find(active_id_);
    if (job->is_cancelled) {
      active_.reset();
      is_training_ = false;
      End(*job, JobState::kCancelled, absl::OkStatus());
      return true;
    }
    if (active_->is_writing()) {
      is_writing_ = true;
      changed_.SignalAll();
      return false;
    }
  }
  RunSlice();
  return true;
}

void JobRunner::RunSlice() {
  const absl::StatusOr<bool> done = active_->RunSlice();
  if (!done.ok()) {
    Finish(done.status());
  } else if (*done) {
    NoteProgress();
    Finish(absl::OkStatus());
  } else {
    NoteProgress();
  }
}

bool JobRunner::Begin() {
  std::unique_ptr<Ready> ready;
  {
    MutexLock lock(&mu_);
    if (ready_ == nullptr) return false;
    ready = std::move(ready_);
    is_training_ = true;
    Find(ready->id)->record.state = JobState::kRunning;
  }
  active_id_ = ready->id;
  absl::StatusOr<std::unique_ptr<TrainingJob>> job = TrainingJob::Create(
      subject_, ready->files, ready->options, *std::move(ready->data));
  if (!job.ok()) {
    Finish(job.status());
    return true;
  }
  active_ = *std::move(job);
  Log(LogLevel::kInfo, "training job starts",
      {{"job", active_id_},
       {"steps", absl::StrCat(active_->num_steps())},
       {"done", absl::StrCat(active_->steps_done())}});
  NoteProgress();
  return true;
}

void JobRunner::NoteProgress() {
  MutexLock lock(&mu_);
  JobRecord& record = Find(active_id_)->record;
  record.examples = active_->data().size();
  record.num_steps = active_->num_steps();
  record.steps_done = active_->steps_done();
  const TrainingHistory& history = active_->history();
  if (!history.steps.empty()) record.loss = history.steps.back().loss;
  if (!history.evals.empty()) {
    record.eval_loss = history.evals.back().loss;
    record.eval_exact_match = history.evals.back().exact_match;
  }
}

void JobRunner::Finish(const absl::Status& error) {
  active_.reset();
  MutexLock lock(&mu_);
  is_training_ = false;
  Job& job = *Find(active_id_);
  if (error.ok()) {
    job.record.state = JobState::kRegistering;
    job.is_dirty = true;
    changed_.SignalAll();
  } else {
    End(job, JobState::kFailed, error);
  }
}

// ---- the runner's own thread -----------------------------------------------

void JobRunner::Loop() {
  while (true) {
    if (Write() || Save() || Publish() || Prepare()) continue;
    MutexLock lock(&mu_);
    if (is_ending_) return;
    const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return is_writing_ ||
             std::ranges::any_of(
                 jobs_,
                 [this](const Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
                   return job.is_dirty ||
                          job.record.state == JobState::kRegistering ||
                          (job.record.state == JobState::kQueued &&
                           ready_ == nullptr && !is_training_);
                 });
    };
    if (!has_work()) changed_.Wait(&mu_);
  }
}

bool JobRunner::Write() {
  {
    MutexLock lock(&mu_);
    if (is_ending_ || !is_writing_) return false;
  }
  RunSlice();
  MutexLock lock(&mu_);
  is_writing_ = false;
  engine_.Wake();
  return true;
}

bool JobRunner::Save() {
  JobRecord record;
  {
    MutexLock lock(&mu_);
    const auto it = std::ranges::find_if(
        jobs_, [](const Job& job) { return job.is_dirty; });
    if (it == jobs_.end()) return false;
    it->is_dirty = false;
    record = it->record;
  }
  MutexLock lock(&store_mu_);
  const absl::Status status = store_->Update(record);
  if (!status.ok()) {
    Log(LogLevel::kError, "the end of a training job is not on disk",
        {{"job", record.id}, {"why", std::string(status.message())}});
  } else if (IsFinal(record.state) && record.state != JobState::kFailed) {
    store_->RemoveFiles(record.id);
  }
  return true;
}

bool JobRunner::Publish() {
  JobRecord record;
  {
    MutexLock lock(&mu_);
    if (is_ending_) return false;
    const auto it = std::ranges::find_if(jobs_, [](const Job& job) {
      return job.record.state == JobState::kRegistering;
    });
    if (it == jobs_.end()) return false;
    record = it->record;
  }
  const absl::StatusOr<uint32_t> version =
      publish_(record, store_->OutputPath(record.id));
  MutexLock lock(&mu_);
  Job& job = *Find(record.id);
  if (version.ok()) {
    job.record.version = *version;
    End(job, JobState::kSucceeded, absl::OkStatus());
  } else {
    End(job, JobState::kFailed, version.status());
  }
  return true;
}

bool JobRunner::Prepare() {
  auto ready = std::make_unique<Ready>();
  JobRecord record;
  {
    MutexLock lock(&mu_);
    if (is_ending_ || ready_ != nullptr || is_training_) return false;
    const auto it = std::ranges::find_if(jobs_, [](const Job& job) {
      return job.record.state == JobState::kQueued;
    });
    if (it == jobs_.end()) return false;
    record = it->record;
  }
  ready->id = record.id;
  ready->options = record.options;
  ready->files.data = store_->DataPath(record.id);
  if (record.has_eval) ready->files.eval = store_->EvalPath(record.id);
  ready->files.output = store_->OutputPath(record.id);
  ready->files.checkpoint_steps = options_.checkpoint_steps;
  ready->files.eval_steps = options_.eval_steps;
  ready->files.loss_rows = kLossRows;
  ready->files.resume = store_->HasCheckpoint(record.id);
  const bool has_output = store_->HasOutput(record.id);
  absl::StatusOr<TrainingData> data =
      TrainingJob::Read(subject_, ready->files, ready->options);
  MutexLock lock(&mu_);
  Job& job = *Find(record.id);
  if (job.record.state != JobState::kQueued) return true;  // cancelled
  if (has_output) {  // the process ended before it became a version
    job.record.state = JobState::kRegistering;
  } else if (!data.ok()) {
    End(job, JobState::kFailed, data.status());
  } else {
    ready->data = *std::move(data);
    ready_ = std::move(ready);
    engine_.Wake();
  }
  return true;
}

}  // namespace lorikeet
