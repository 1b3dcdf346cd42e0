// A JobRunner trains: one job after the other, on the base that serves, in the
// time that the engine's thread has left.
//
// Three kinds of threads. Callers add, look at and cancel jobs. The engine's
// thread, as GapWork, trains: a slice after a serving step when the share has
// earned it, and without pause while nothing is served. A thread of its own
// does everything that waits for disks: reads data, writes checkpoints, output
// and records, publishes results. While it writes for a job that job pauses.
//
// A job that is not final survives a restart: it goes on from its last
// checkpoint to the same bits.
//
// Thread-safe, but for GapWork.

#ifndef LORIKEET_SERVER_TRAINING_JOB_RUNNER_H_
#define LORIKEET_SERVER_TRAINING_JOB_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/background_queue.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/engine/engine.h"
#include "server/engine/gap_work.h"
#include "server/training/job_record.h"
#include "server/training/job_store.h"
#include "server/training/training_share.h"
#include "train/training_job.h"

namespace lorikeet {

class JobRunner final : public GapWork {
 public:
  // Jobs that are not final, at most.
  static constexpr size_t kMaxOpenJobs = 16;
  // Final jobs that are remembered.
  static constexpr size_t kMaxFinalJobs = 200;

  struct Options {
    std::string dir;     // of the jobs
    double share = 0.2;  // of the engine thread's time while it serves
    int64_t checkpoint_steps = 10;
    int64_t eval_steps = 50;
  };
  // Makes a version of what a job wrote to `dir`; returns its number. Called
  // again for the same job after a crash. On the runner's thread.
  using Publisher = std::function<absl::StatusOr<uint32_t>(
      const JobRecord&, const std::string& dir)>;

  // Takes up the jobs that are there. All but `options` outlives this.
  static absl::StatusOr<std::unique_ptr<JobRunner>> Start(
      const TrainingSubject& subject, Engine& engine, const Clock& clock,
      const Options& options, Publisher publish);
  // Stops training at once; jobs stay as their last checkpoints have them.
  ~JobRunner() override;

  // Adds a job with its data; fills in what the record has of the job itself.
  // Errors: RESOURCE_EXHAUSTED (reason JOBS_FULL, or DISK_FULL);
  // ALREADY_EXISTS (reason JOB_EXISTS) while another trains the same adapter.
  absl::StatusOr<JobRecord> Add(JobRecord record, absl::string_view data,
                                absl::string_view eval);
  // Errors of all: NOT_FOUND (reason JOB_NOT_FOUND).
  absl::StatusOr<JobRecord> Get(const std::string& id) const;
  std::vector<JobRecord> List() const;  // the oldest first
  // Ends a job soon. Errors: FAILED_PRECONDITION (reason JOB_ENDED) if it has
  // ended or has its adapter already.
  absl::StatusOr<JobRecord> Cancel(const std::string& id);

  const TrainingSubject& subject() const { return subject_; }

  // ---- engine thread -------------------------------------------------------

  void AfterStep(absl::Duration step) override;
  bool WhileIdle() override;

 private:
  struct Job {
    JobRecord record;
    bool is_cancelled = false;  // asked for
    bool is_dirty = false;      // the record on disk is older
  };
  // A job whose data is in memory.
  struct Ready {
    std::string id;
    TrainingFiles files;
    TrainingOptions options;
    std::optional<TrainingData> data;
  };

  JobRunner(const TrainingSubject& subject, Engine& engine, const Clock& clock,
            const Options& options, std::unique_ptr<JobStore> store,
            Publisher publish);

  Job* Find(const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void End(Job& job, JobState state, const absl::Status& error)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes out final jobs that are too many; their files are still there.
  std::vector<std::string> Forget() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckRoom(const JobRecord& record) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Engine thread. Returns false if there is nothing to train.
  bool RunPiece();
  bool Begin();
  // Whoever has active_: does its next slice.
  void RunSlice();
  void NoteProgress();
  void Finish(const absl::Status& error);

  // The runner's own thread.
  void Loop();
  bool Write();
  bool Save();
  bool Publish();
  bool Prepare();

  const TrainingSubject subject_;
  Engine& engine_;
  const Clock& clock_;
  const Options options_;
  const Publisher publish_;

  // Of the engine's thread; active_ is the runner's while is_writing_.
  TrainingShare share_;
  std::string active_id_;
  std::unique_ptr<TrainingJob> active_;

  // mu_ is the engine's thread's too, so it is never held over I/O, and
  // store_mu_, which is while store_ writes, is taken only without it.
  mutable Mutex mu_;
  CondVar changed_;
  Mutex store_mu_;
  const std::unique_ptr<JobStore> store_;
  std::vector<Job> jobs_ ABSL_GUARDED_BY(mu_);  // as they came
  // Tenant and adapter of jobs that are being written.
  std::set<std::pair<std::string, std::string>> adding_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Ready> ready_ ABSL_GUARDED_BY(mu_);
  bool is_training_ ABSL_GUARDED_BY(mu_) = false;  // active_ is not null
  bool is_writing_ ABSL_GUARDED_BY(mu_) = false;
  bool is_ending_ ABSL_GUARDED_BY(mu_) = false;
  std::unique_ptr<BackgroundThread> thread_;  // last: uses all of the above
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_TRAINING_JOB_RUNNER_H_
