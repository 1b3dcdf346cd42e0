// A JobRecord is what is known of a training job, as it is kept in the state
// directory and shown to people.
//
// Plain data.

#ifndef LORIKEET_SERVER_TRAINING_JOB_RECORD_H_
#define LORIKEET_SERVER_TRAINING_JOB_RECORD_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/json.h"
#include "train/training_options.h"

namespace lorikeet {

enum class JobState {
  kQueued,       // waits for jobs before it, or goes on after a restart
  kRunning,      // trains
  kRegistering,  // has its adapter, which is not a version yet
  kSucceeded,
  kFailed,
  kCancelled,
};
const char* Name(JobState state);  // "queued", ...
inline bool IsFinal(JobState state) { return state >= JobState::kSucceeded; }

// The new version as a candidate of an alias.
struct JobCanary {
  std::string alias;
  uint32_t percent = 0;  // of the alias's requests
};

struct JobRecord {
  std::string id;  // "job-17"
  std::string tenant;
  std::string adapter;  // that gets the version
  TrainingOptions options;
  bool has_eval = false;
  std::optional<JobCanary> canary;

  JobState state = JobState::kQueued;
  absl::Status error;    // of kFailed
  uint32_t version = 0;  // of kSucceeded
  absl::Time create_time;
  std::optional<absl::Time> end_time;

  // Progress; of a job that is not final, since the last start.
  int64_t examples = 0;
  int64_t num_steps = 0;  // 0: not known yet
  int64_t steps_done = 0;
  double loss = 0;  // of the last step
  std::optional<double> eval_loss, eval_exact_match;

  Json ToJson() const;
  // Errors: INVALID_ARGUMENT if it is not what ToJson gave.
  static absl::StatusOr<JobRecord> FromJson(const Json& json);
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_TRAINING_JOB_RECORD_H_
