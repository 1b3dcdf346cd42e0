// Errors about adapters and aliases that more than one file gives, each with
// its reason (docs/errors.md).
//
// Pure.

#ifndef LORIKEET_ADAPTERS_ADAPTER_STATUS_H_
#define LORIKEET_ADAPTERS_ADAPTER_STATUS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lorikeet {

// Returns `"name" of tenant "tenant"`.
std::string DescribeName(const std::string& tenant, const std::string& name);

// NOT_FOUND, reasons ADAPTER_NOT_FOUND and ALIAS_NOT_FOUND.
absl::Status AdapterNotFound(const std::string& tenant,
                             const std::string& name);
absl::Status AliasNotFound(const std::string& tenant, const std::string& name);
// ALREADY_EXISTS, reason ADAPTER_EXISTS; `what` is "adapter" or "alias".
absl::Status NameTaken(const std::string& tenant, const std::string& name,
                       absl::string_view what);
// OK, or ABORTED, reason ETAG_MISMATCH.
absl::Status CheckEtag(std::optional<uint64_t> expected, uint64_t actual);
// FAILED_PRECONDITION, reasons ADAPTER_IN_USE and ADAPTER_DRAINING.
absl::Status AdapterInUse(const std::string& tenant, const std::string& name,
                          int64_t users);
absl::Status AdapterDraining(const std::string& tenant,
                             const std::string& name);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_STATUS_H_
