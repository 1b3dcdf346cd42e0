// Names of adapters and the key of one immutable version.
//
// Text form: "[tenant/]name[@version]" where version is a number, or
// "sha256:<hex>" (at least 12 digits). Ids match
// [A-Za-z0-9][A-Za-z0-9._-]{0,62}. Until tenancy the tenant is "default".
// Value types.

#ifndef LORIKEET_ADAPTERS_ADAPTER_KEY_H_
#define LORIKEET_ADAPTERS_ADAPTER_KEY_H_

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/digest.h"

namespace lorikeet {

inline constexpr absl::string_view kDefaultTenant = "default";

// Errors: INVALID_ARGUMENT naming `what`, the value and the rule.
absl::Status CheckId(absl::string_view what, absl::string_view id);

// What a request or an operator wrote, split into its parts.
struct AdapterRef {
  std::string tenant{kDefaultTenant};
  std::string name;                   // an adapter or an alias
  std::optional<uint32_t> version;    // "@3"
  std::optional<std::string> digest;  // "@sha256:ab12...": hex prefix
  // Errors: INVALID_ARGUMENT naming the text and the rule.
  static absl::StatusOr<AdapterRef> Parse(absl::string_view text);
};

// One immutable version; what requests pin and caches are keyed by.
struct AdapterKey {
  std::string tenant;
  std::string name;
  uint32_t version = 0;  // counts from 1 per adapter
  Digest digest;         // of the content

  // "name@3", with "tenant/" in front unless it is the default tenant.
  std::string ToString() const;
  friend auto operator<=>(const AdapterKey&, const AdapterKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const AdapterKey& k) {
    return H::combine(std::move(h), k.tenant, k.name, k.version, k.digest);
  }
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_KEY_H_
