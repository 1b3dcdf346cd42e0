// What people and files say of an adapter, as AdapterInfo keeps it.
//
// Pure.

#ifndef LORIKEET_ADAPTERS_ADAPTER_METADATA_H_
#define LORIKEET_ADAPTERS_ADAPTER_METADATA_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "adapters/adapter_info.h"
#include "adapters/adapter_weights.h"

namespace lorikeet {

// Errors: INVALID_ARGUMENT (reason INVALID_METADATA) naming field and limit.
absl::Status CheckMetadata(
    const std::string& display_name,
    const std::vector<std::pair<std::string, std::string>>& labels);

// Returns what is known of a version read as `weights` for the base `base`.
AdapterVersionInfo MakeVersionInfo(const AdapterWeights& weights,
                                   AdapterKey key, const Digest& base,
                                   uint64_t size_bytes, absl::Time now);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_METADATA_H_
