// A CheckpointStore keeps a job's state on disk, so that it goes on after a
// crash to the same bits: DIR/step-<number>/ with state.json and
// state.safetensors (values and both moments of every trained tensor).
//
// A checkpoint is written under another name and renamed when it is durable;
// the two newest are kept. A crash or a full disk leaves those before it.
//
// Thread-compatible. Calls block on disk.

#ifndef LORIKEET_TRAIN_CHECKPOINT_STORE_H_
#define LORIKEET_TRAIN_CHECKPOINT_STORE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_system.h"
#include "base/json.h"
#include "train/parameter_set.h"

namespace lorikeet {

class CheckpointStore {
 public:
  // `fs` outlives this. `dir` exists.
  CheckpointStore(FileSystem& fs, std::string dir)
      : fs_(fs), dir_(std::move(dir)) {}

  // Errors: those of the file system (RESOURCE_EXHAUSTED: the disk is full),
  // naming the step.
  absl::Status Save(int64_t step, const Json& state,
                    const ParameterSet& parameters);

  // Returns the newest step that has a checkpoint, nullopt if there is none.
  absl::StatusOr<std::optional<int64_t>> Latest();

  // Returns state.json of a step.
  absl::StatusOr<Json> ReadState(int64_t step);
  // Fills values and moments. Errors: DATA_LOSS naming the file if it does not
  // have these parameters.
  absl::Status ReadParameters(int64_t step, ParameterSet& parameters);

 private:
  std::string PathOf(int64_t step) const;
  absl::StatusOr<std::vector<int64_t>> Steps();
  absl::Status Write(const std::string& path, const Json& state,
                     const ParameterSet& parameters);
  void RemoveOld();

  FileSystem& fs_;
  const std::string dir_;
};

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_CHECKPOINT_STORE_H_
