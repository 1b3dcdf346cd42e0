// An Alias is a task tag: it points to one version, or splits its requests by
// weight over several.
//
//   targets[0]    the stable target: what a roll back returns to
//   targets[1..]  candidates (canaries)
//   shadow        a version that also gets a share of the requests; its answers
//                 are compared and counted, never returned
//   previous      the stable target before the present one
//
// Which target answers depends on the alias' name and a key alone, so the same
// caller stays on the same version, and raising the weight of the last target
// takes callers from the others without moving its own.
//
// Plain data and functions of it. Pure.

#ifndef LORIKEET_ADAPTERS_ALIAS_H_
#define LORIKEET_ADAPTERS_ALIAS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lorikeet {

// A version of an adapter of the alias' own tenant.
struct AliasTarget {
  std::string adapter;
  uint32_t version = 0;
  uint32_t weight = 1;  // share = weight / sum of weights

  std::string ToString() const;  // "support@3"
  bool IsSameVersion(const AliasTarget& other) const {
    return adapter == other.adapter && version == other.version;
  }
  friend bool operator==(const AliasTarget&, const AliasTarget&) = default;
};

struct AliasShadow {
  std::string adapter;
  uint32_t version = 0;
  double share = 0;  // of the requests, in (0, 1]

  std::string ToString() const;
  friend bool operator==(const AliasShadow&, const AliasShadow&) = default;
};

// When a candidate is taken back without anybody being asked. Counted per
// target over the requests that ended within the window.
struct RollbackRule {
  double max_error_rate = 1;  // in [0, 1]; 1 = errors do not matter
  // Of the 95th percentile of the time to the first token; infinite = any.
  absl::Duration max_latency = absl::InfiniteDuration();
  absl::Duration window = absl::Minutes(5);
  int64_t min_requests = 20;  // fewer say nothing
  friend bool operator==(const RollbackRule&, const RollbackRule&) = default;
};

struct Alias {
  std::string tenant, name;
  std::vector<AliasTarget> targets;  // at least one
  std::optional<AliasShadow> shadow;
  std::optional<AliasTarget> previous;
  std::optional<RollbackRule> rule;
  uint64_t etag = 0;

  const AliasTarget& stable() const { return targets.front(); }
  // "a@1:95 a@2:5 shadow b@1:0.1", for the audit trail and for people.
  std::string DescribeTargets() const;
  // True if both send every request to the same places.
  bool RoutesLike(const Alias& other) const;
};

inline constexpr size_t kMaxAliasTargets = 16;
inline constexpr uint32_t kMaxAliasWeight = 1'000'000;

// Checks all that does not need the registry. Errors: INVALID_ARGUMENT naming
// field, value and limit, reasons INVALID_SPLIT and INVALID_RULE.
absl::Status CheckAlias(const Alias& alias);

// Returns the index of the target for `key`; 0 for an empty one.
size_t ChooseTarget(const Alias& alias, absl::string_view key);
// Whether the shadow gets the request of `key` too; independent of the target.
bool IsShadowed(const Alias& alias, absl::string_view key);

// Returns `alias` with all requests on `target`, no candidates and no shadow;
// remembers the stable target before.
Alias Promoted(const Alias& alias, const AliasTarget& target);
// Returns what promotion without a name means: the one candidate, else the
// shadow. Errors: FAILED_PRECONDITION (reason ALIAS_NO_CANDIDATE).
absl::StatusOr<AliasTarget> CandidateOf(const Alias& alias);
// Returns `alias` without candidates and shadow, or, if it has none, with the
// stable target before. Errors: FAILED_PRECONDITION (reason ALIAS_NO_PREVIOUS).
absl::StatusOr<Alias> RolledBack(const Alias& alias);
// Removes what is gone: targets, shadow and previous for which `is_gone`.
// Returns false if no target is left.
template <typename IsGone>
bool RemoveTargets(const IsGone& is_gone, Alias* alias) {
  std::erase_if(alias->targets, [&](const AliasTarget& t) {
    return is_gone(t.adapter, t.version);
  });
  if (alias->shadow && is_gone(alias->shadow->adapter, alias->shadow->version))
    alias->shadow.reset();
  if (alias->previous &&
      is_gone(alias->previous->adapter, alias->previous->version)) {
    alias->previous.reset();
  }
  return !alias->targets.empty();
}

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ALIAS_H_
