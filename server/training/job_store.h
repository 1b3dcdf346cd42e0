// A JobStore keeps training jobs in a directory: DIR/job-N/ with record.json,
// the data as it was given (data.jsonl, eval.jsonl), and what the job itself
// writes (output, output.training).
//
// A job exists from when its record is there, which is written last and
// replaced whole; what a crash leaves of one without a record is removed at the
// next start.
//
// Thread-compatible. Calls block on disk.

#ifndef LORIKEET_SERVER_TRAINING_JOB_STORE_H_
#define LORIKEET_SERVER_TRAINING_JOB_STORE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "server/training/job_record.h"

namespace lorikeet {

class JobStore {
 public:
  // Opens or creates `dir`. Errors: those of the file system.
  static absl::StatusOr<std::unique_ptr<JobStore>> Open(FileSystem& fs,
                                                        std::string dir);

  // Ascending by number. A record that cannot be read is left alone, logged and
  // not among them.
  std::vector<JobRecord> ReadAll();

  // Gives the record an id and writes it and its data; `eval` empty: none.
  // Errors: those of the file system; then the job does not exist.
  absl::Status Create(absl::string_view data, absl::string_view eval,
                      JobRecord* record);
  // Errors: those of the file system; then the record is as before.
  absl::Status Update(const JobRecord& record);
  // Removes what a job needs no more: data, checkpoints, output.
  void RemoveFiles(const std::string& id);
  // Removes all of a job.
  void Remove(const std::string& id);

  std::string DataPath(const std::string& id) const;
  std::string EvalPath(const std::string& id) const;
  std::string OutputPath(const std::string& id) const;
  bool HasOutput(const std::string& id) const;
  // Whether the job can go on from a checkpoint.
  bool HasCheckpoint(const std::string& id) const;

 private:
  JobStore(FileSystem& fs, std::string dir) : fs_(fs), dir_(std::move(dir)) {}
  std::string PathOf(const std::string& id) const;

  FileSystem& fs_;
  const std::string dir_;
  int64_t last_number_ = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_TRAINING_JOB_STORE_H_
