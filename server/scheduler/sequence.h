// What the scheduler keeps of a request and of each of its candidates.
//
// A sequence is one candidate. Until the prompt of a request is computed only
// candidate 0 exists for the schedule (the leader); then all candidates fork.
// Plain data.

#ifndef LORIKEET_SERVER_SCHEDULER_SEQUENCE_H_
#define LORIKEET_SERVER_SCHEDULER_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <tuple>
#include <vector>

#include "server/scheduler/prefix_cache.h"
#include "server/scheduler/scheduler.h"

namespace lorikeet {

struct Sequence;

// How many sequences use an adapter, and what a plan has found out about it.
struct AdapterUse {
  AdapterKey key;
  int64_t requests = 0;
  int64_t running = 0;  // sequences
  // Valid for the plan of that number only.
  int64_t plan_number = -1;
  bool is_resident = false;
  bool is_listed = false;  // in StepPlan::promote
};

struct RequestEntry {
  SchedulerRequest request;
  std::vector<AdapterUse*> adapters;                 // empty = base
  std::vector<std::unique_ptr<Sequence>> sequences;  // by candidate
  bool is_paused = false;
  bool was_admitted = false;
  bool has_forked = false;  // always true from the first token on
  int64_t alive = 0;        // sequences that have not ended
};

struct Sequence {
  enum class State {
    kUnborn,   // a candidate that has not forked yet
    kWaiting,  // also after a preemption
    kRunning,
    kEnded,
  };

  SequenceId id;
  RequestEntry* entry = nullptr;
  int32_t candidate = 0;
  State state = State::kUnborn;
  bool ends_at_fork = false;  // the leader was ended before the fork

  std::vector<Token> tokens;      // prompt + output
  std::vector<int32_t> blocks;    // one reference each
  int64_t num_computed = 0;       // leading tokens whose K and V are in blocks
  int64_t num_registered = 0;     // leading blocks the prefix cache was told of
  PrefixCache::Link prefix_link;  // of the last of these

  int64_t passes = 0;         // younger ones admitted before it
  bool starts = false;        // admitted, no step committed since
  int32_t cached_tokens = 0;  // of the prompt, when last admitted

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_remaining() const { return num_tokens() - num_computed; }
  bool is_leader() const { return !entry->has_forked; }
  // Places in the running set that it takes, or will take when it forks.
  int64_t num_places() const { return is_leader() ? entry->alive : 1; }
  bool has_sampled() const {
    return tokens.size() > entry->request.prompt.size();
  }
};

// Who goes first: by priority, then by arrival, then by id.
struct IsOlder {
  static auto Key(const Sequence& s) {
    const SchedulerRequest& r = s.entry->request;
    return std::make_tuple(r.priority, r.arrival, r.id, s.candidate);
  }
  bool operator()(const Sequence* a, const Sequence* b) const {
    return Key(*a) < Key(*b);
  }
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_SCHEDULER_SEQUENCE_H_
