// The audit trail: one entry per change of what a name can answer, written in
// the transaction of the change and never altered.
// Plain data.

#ifndef LORIKEET_ADAPTERS_AUDIT_H_
#define LORIKEET_ADAPTERS_AUDIT_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lorikeet {

// Actor of what is not asked for over the network.
inline constexpr absl::string_view kCliActor = "cli";
inline constexpr absl::string_view kServerActor = "server";

struct AuditEntry {
  uint64_t id = 0;  // grows; given by the registry
  absl::Time time;
  std::string actor;   // the peer of a call, "cli" or "server"
  std::string action;  // "register", "update", "delete", "retire",
                       // "quarantine", "alias.set", "alias.promote",
                       // "alias.rollback", "alias.delete"
  std::string tenant;
  std::string name;        // of the adapter or alias
  std::string old_target;  // "support@1:95 support@2:5"; "" = none
  std::string new_target;
  std::string reason;  // free text
};

struct AuditQuery {
  std::string tenant;
  std::string name;     // "" = all
  uint64_t before = 0;  // ids below this; 0 = from the newest
  int limit = 100;      // > 0
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_AUDIT_H_
