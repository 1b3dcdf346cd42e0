// What the outside sees of adapters, their versions and aliases.
// Plain data.

#ifndef LORIKEET_ADAPTERS_ADAPTER_INFO_H_
#define LORIKEET_ADAPTERS_ADAPTER_INFO_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "adapters/adapter_features.h"
#include "adapters/adapter_key.h"
#include "adapters/alias.h"
#include "adapters/merge_policy.h"
#include "base/digest.h"

namespace lorikeet {

enum class Tier { kDisk, kHost, kDevice };
const char* Name(Tier tier);  // "disk", "host", "device"

enum class AdapterState {
  kLoading,
  kActive,
  kDraining,
  kFailed,
  kIncompatible /* registered for another base */
};
const char* Name(AdapterState state);

// What the outside sees of one adapter version.
struct AdapterVersionInfo {
  AdapterKey key;
  Digest base_fingerprint;
  absl::Time create_time;
  int64_t max_rank = 0;
  double alpha = 0;
  bool use_rslora = false;
  std::vector<std::string> target_modules;  // "q_proj", ...
  std::vector<std::string> warnings;
  struct Module {
    std::string name;
    int64_t rank;
    double scaling;
  };
  std::vector<Module> modules;
  AdapterFeatures features;
  int64_t size_bytes = 0;  // of the two files
};

// What the outside sees of one adapter.
struct AdapterInfo {
  std::string tenant, name;
  std::string uid;  // new at each create
  std::string display_name;
  AdapterState state = AdapterState::kActive;
  Tier tier = Tier::kDisk;  // of the newest version
  bool pinned = false;
  std::optional<MergePolicy> merge_policy;  // nullopt = the server's
  int64_t active_requests = 0;              // over all versions
  std::string source_path;  // as given at the last registration; "" = upload
  AdapterVersionInfo newest;
  std::vector<std::pair<std::string, std::string>> labels;
  uint64_t etag = 0;  // changes with every mutation
  absl::Time create_time, update_time;
  std::optional<absl::Time> last_used;
};

// An alias with what its stable target is right now.
struct AliasInfo : Alias {
  AdapterKey target;
};

// A change, for watchers.
struct AdapterEvent {
  enum class Kind { kAdded, kModified, kDeleted };
  uint64_t sequence = 0;  // grows by 1 per event
  Kind kind = Kind::kAdded;
  AdapterInfo adapter;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_INFO_H_
