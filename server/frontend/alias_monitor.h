// An AliasMonitor counts how the targets of aliases do: how their requests end
// and how soon the first token comes, and how a shadow's answers compare. A
// candidate that breaks its alias' rule is rolled back, once, in the
// background.
//
// Counts are of this process and of the alias as it is: a change of it starts
// them anew.
//
// Thread-safe. Nothing waits.

#ifndef LORIKEET_SERVER_FRONTEND_ALIAS_MONITOR_H_
#define LORIKEET_SERVER_FRONTEND_ALIAS_MONITOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "adapters/adapter_store.h"
#include "base/background_queue.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/engine/engine.h"
#include "server/frontend/outcome_window.h"
#include "server/frontend/shadow_traffic.h"
#include "server/frontend/watched_stream.h"

namespace lorikeet {

struct AliasCounts {
  struct Target {
    int64_t requests = 0;        // that ended
    int64_t errors = 0;          // of them, through a fault of the version
    absl::Duration latency_p95;  // to the first token, over the last ones
  };
  struct Shadow {
    int64_t equal = 0, different = 0, failed = 0, skipped = 0;
  };
  std::map<std::pair<std::string, uint32_t>, Target> targets;
  Shadow shadow;
};

class AliasMonitor {
 public:
  // All must outlive this.
  AliasMonitor(AdapterStore& store, Engine& engine, const Clock& clock);
  ~AliasMonitor();

  // Returns a stream that gives what `stream` gives and counts how it ends.
  // `copy` is run on route.shadow, if there is one. REQUIRES: route.is_watched.
  std::shared_ptr<TokenStream> Watch(const Route& route,
                                     std::shared_ptr<TokenStream> stream,
                                     EngineRequest copy);
  AliasCounts CountsOf(const AliasInfo& alias) const;

 private:
  // What outlives the monitor: streams may.
  struct State;
  // What is counted for one request.
  struct Subject;
  static void Count(const std::shared_ptr<State>& state, const Subject& subject,
                    const StreamResult& result);

  const std::shared_ptr<State> state_;
  ShadowTraffic shadows_;
  BackgroundQueue queue_;  // last: its work uses the store
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_ALIAS_MONITOR_H_
