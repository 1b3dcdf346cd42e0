// An OutcomeWindow remembers how the last requests of one target ended, and a
// rule says whether that is good enough.
//
// Bounded: beyond kMaxOutcomes the oldest are forgotten. Pure; time is given.
// Thread-compatible.

#ifndef LORIKEET_SERVER_FRONTEND_OUTCOME_WINDOW_H_
#define LORIKEET_SERVER_FRONTEND_OUTCOME_WINDOW_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "absl/time/time.h"
#include "adapters/alias.h"

namespace lorikeet {

class OutcomeWindow {
 public:
  static constexpr size_t kMaxOutcomes = 1000;

  struct Summary {
    int64_t requests = 0;
    int64_t errors = 0;
    // Nearest-rank 95th percentile of the time to the first token over the
    // requests without an error; zero if there is none.
    absl::Duration latency_p95;
  };

  // `now` never goes back.
  void AddSuccess(absl::Duration now, absl::Duration latency);
  void AddError(absl::Duration now);
  // Of the outcomes later than `now` - `window`.
  Summary Sum(absl::Duration now, absl::Duration window) const;

 private:
  struct Outcome {
    absl::Duration time;
    bool is_error = false;
    absl::Duration latency;
  };
  void Add(Outcome outcome);

  std::deque<Outcome> outcomes_;
};

// Returns how `summary` breaks `rule`, for people, or "" if it does not.
std::string BrokenRule(const RollbackRule& rule,
                       const OutcomeWindow::Summary& summary);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_OUTCOME_WINDOW_H_
