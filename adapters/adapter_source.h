// An AdapterSource is the files that a registration starts from, found in
// an upload or below a directory that the operator allows.
//
// A path is followed through all links before it is compared with the roots,
// the directory as well as each file in it. Of what lies elsewhere not even its
// absence is told.
//
// Thread-safe. Blocks on disk.

#ifndef LORIKEET_ADAPTERS_ADAPTER_SOURCE_H_
#define LORIKEET_ADAPTERS_ADAPTER_SOURCE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "adapters/peft_reader.h"
#include "base/file_system.h"

namespace lorikeet {

struct AdapterSource {
  std::string config_path, model_path;
  std::string golden_path;  // "" = none

  // Where to look.
  struct Options {
    std::vector<std::string> roots;
    bool trusted_path = false;  // any path is allowed
    PeftLimits limits;
  };
  // Errors: PERMISSION_DENIED (reason PATH_NOT_ALLOWED) for a path outside of
  // the roots; NOT_FOUND naming the file.
  static absl::StatusOr<AdapterSource> FromPath(FileSystem& fs,
                                                const std::string& path,
                                                const Options& options);
  // `dir` is ours: its files are taken as they are. Errors: NOT_FOUND.
  static absl::StatusOr<AdapterSource> FromUpload(FileSystem& fs,
                                                  const std::string& dir,
                                                  const PeftLimits& limits);
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_SOURCE_H_
