// A request with adapters is answered by one of two variants, which differ in
// bits: the base's weights with the low-rank parts beside them, or weights with
// these merged in. A policy says which one requests get that do not ask for
// one: never merged, always, or as the server finds it cheaper; per server, and
// per adapter where it differs.
//
// Value type.

#ifndef LORIKEET_ADAPTERS_MERGE_POLICY_H_
#define LORIKEET_ADAPTERS_MERGE_POLICY_H_

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace lorikeet {

enum class Variant : uint8_t { kUnmerged, kMerged };
const char* Name(Variant variant);  // "unmerged", "merged"

enum class MergePolicy : uint8_t { kNever, kAlways, kAuto };

// "never", "always", "auto".
const char* Name(MergePolicy policy);
// Nullopt for any other text.
std::optional<MergePolicy> ParseMergePolicy(absl::string_view text);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_MERGE_POLICY_H_
