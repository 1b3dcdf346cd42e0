// What may be asked of training: checks every field against its limit before a
// job exists, so that what can be wrong is said at once.
//
// Thread-safe. Create reads and writes files.

#ifndef LORIKEET_SERVER_TRAINING_TRAINING_SERVICE_H_
#define LORIKEET_SERVER_TRAINING_TRAINING_SERVICE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "adapters/adapter_store.h"
#include "server/frontend/golden_gate.h"
#include "server/frontend/model_info.h"
#include "server/training/job_record.h"
#include "server/training/job_runner.h"

namespace lorikeet {

// Of a data file that comes with the call, and of one on the server.
inline constexpr int64_t kMaxInlineDataBytes = int64_t{8} << 20;
inline constexpr int64_t kMaxDataFileBytes = int64_t{256} << 20;

// One of them.
struct DataSource {
  std::string local_path;
  std::string content;
  bool empty() const { return local_path.empty() && content.empty(); }
};

struct CreateJobInput {
  std::string tenant;
  std::string adapter;
  // token_budget 0: as the longest example needs, which keeps slices short.
  TrainingOptions options;
  DataSource data;
  DataSource eval;  // empty: none
  std::optional<JobCanary> canary;
};

class TrainingService {
 public:
  // `runner` null: the server does not train, and `why_not` says why. Roots:
  // folders that data files may lie in. All outlives this.
  TrainingService(const ModelInfo& model, AdapterStore& store, FileSystem& fs,
                  std::vector<std::string> roots, JobRunner* runner,
                  absl::Status why_not);

  // Errors: INVALID_ARGUMENT naming field, value and limit, or the line of the
  // data; NOT_FOUND of a file; PERMISSION_DENIED / PATH_NOT_ALLOWED;
  // ALREADY_EXISTS if the name is an alias or the base model, or as
  // JobRunner::Add; FAILED_PRECONDITION / TRAINING_OFF.
  absl::StatusOr<JobRecord> Create(const CreateJobInput& input);
  // Errors of all: as JobRunner, and those of a server that does not train.
  absl::StatusOr<JobRecord> Get(const std::string& id);
  absl::StatusOr<std::vector<JobRecord>> List();
  absl::StatusOr<JobRecord> Cancel(const std::string& id);

 private:
  absl::Status CheckNames(const CreateJobInput& input);
  absl::StatusOr<std::string> ReadSource(const std::string& field,
                                         const DataSource& source);
  absl::Status CheckPath(const std::string& field, const std::string& path);

  const ModelInfo& model_;
  AdapterStore& store_;
  FileSystem& fs_;
  const std::vector<std::string> roots_;
  JobRunner* const runner_;
  const absl::Status why_not_;
};

// A JobRunner::Publisher: registers the version, and makes it a candidate of
// the job's alias, which is created if it is not there. `gate` checks golden
// prompts as it does for every registration. Both outlive the result.
JobRunner::Publisher NewJobPublisher(AdapterStore& store, GoldenGate& gate);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_TRAINING_TRAINING_SERVICE_H_
