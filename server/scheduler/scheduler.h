// The Scheduler decides which rows the next step computes. Pure: plain data in,
// plain data out; no threads, clock, files, tensors.
//
// It owns the sequences' progress, the KV blocks and the prefix cache.
//   Plan    running decodes first, then chunked prefill up to the token budget,
//           oldest first (a younger request whose adapter is resident may pass
//           an older one that waits for its adapter, never for ever: see
//           SchedulerOptions::max_passes)
//   Commit  applies what the step sampled
// A request that lacks blocks makes the youngest running sequence give its own
// back (preemption by recompute: its prompt and output so far are prefilled
// again later, with the same bits).
//
// A prefix hit compares tokens, not only hashes, and leaves at least one token
// to compute. Blocks are shared by reference count; a shared last block is
// copied before it is written.
//
// Engine thread only.

#ifndef LORIKEET_SERVER_SCHEDULER_SCHEDULER_H_
#define LORIKEET_SERVER_SCHEDULER_SCHEDULER_H_

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "adapters/adapter_key.h"
#include "base/strong_int.h"
#include "base/token.h"

namespace lorikeet {

using RequestId = StrongInt<struct RequestIdTag, int64_t>;
using SequenceId = StrongInt<struct SequenceIdTag, int64_t>;

// What makes KV entries equal besides the tokens: tenant salt, base
// fingerprint, adapters with scales, variant, dtypes. Opaque 128 bits.
struct KvDomain {
  std::array<uint64_t, 2> value{};
  friend auto operator<=>(const KvDomain&, const KvDomain&) = default;
};

// From a position on, until the next one of a list. An adapter that begins to
// act in the middle of a prompt shares what comes before with the base.
struct KvDomainStart {
  int32_t from_position = 0;
  KvDomain domain;
};

// What the scheduler must know of a request. Immutable once added.
struct SchedulerRequest {
  RequestId id;
  absl::Duration arrival;                     // of Clock::Now()
  std::vector<Token> prompt;                  // at least one
  int32_t num_candidates = 1;                 // n > 1 share the prompt's blocks
  int32_t max_tokens = 1;                     // per candidate, >= 1
  std::vector<KvDomainStart> domains = {{}};  // ascend; the first is at 0
  std::vector<AdapterKey> adapters;  // all must be resident to run; none twice
  int32_t priority = 0;              // smaller first, then by arrival
  bool use_prefix_cache = true;
  bool all_prompt_logits = false;  // prompt logprobs: every row's logits

  const KvDomain& DomainAt(int64_t position) const;
};

struct SchedulerOptions {
  int64_t num_blocks = 0;
  int64_t block_size = 32;
  int64_t max_num_seqs = 0;            // running candidates at once
  int64_t max_num_batched_tokens = 0;  // token budget of a step
  int64_t max_waiting_requests = 0;
  bool prefix_caching = true;
  int32_t max_passes = 64;  // times that a waiting request may be passed
  // Rows of a step whose logits are all wanted: they need [rows, vocab] floats.
  int64_t max_all_logits_rows = 256;
};

// Which adapters can be used by the step being planned.
class ResidencyView {
 public:
  virtual ~ResidencyView() = default;
  // True if the adapter is on the device now; the engine keeps it there while
  // a planned row uses it.
  virtual bool IsResident(const AdapterKey& key) const = 0;
  // True if all of `keys` are on the device or could be brought there, beside
  // the ones in use by running sequences.
  virtual bool HasRoomFor(std::span<const AdapterKey> keys) const = 0;
};

// One sequence's rows in a step.
struct PlannedSequence {
  SequenceId sequence;
  RequestId request;
  int32_t candidate = 0;
  // Tokens [begin, end) of prompt + output are computed.
  int32_t begin = 0;
  int32_t end = 0;
  std::span<const Token> tokens;         // end - begin of them
  std::span<const int32_t> block_table;  // covers positions [0, end)
  // True: the last row's logits choose the next token.
  bool samples = false;
  // True: every row's logits are wanted (prompt logprobs).
  bool all_logits = false;
  // First step of the request / of a resumed sequence.
  bool first_step = false;
  int32_t cached_tokens = 0;  // prompt tokens from the cache
};

// Spans point into the scheduler and are valid until Commit.
struct StepPlan {
  std::vector<PlannedSequence> sequences;
  std::vector<std::pair<int32_t, int32_t>> block_copies;  // (from, to)
  // Adapters that waiting and no running requests need, resident or not;
  // asynchronous, most urgent first. Those behind the first kMaxPromote come in
  // a later plan.
  static constexpr size_t kMaxPromote = 64;
  std::vector<AdapterKey> promote;
  std::vector<SequenceId> preempted;
  int64_t num_rows = 0;
  bool empty() const { return sequences.empty(); }
};

// What a step produced for one planned sequence that samples.
struct SampledToken {
  SequenceId sequence;
  Token token = 0;
  bool finished = false;  // the output processor ended the candidate
};

struct SchedulerLoad {
  int64_t running = 0;  // candidates in the running set
  int64_t waiting = 0;  // requests
  int64_t blocks_total = 0;
  int64_t blocks_used = 0;    // held by sequences
  int64_t blocks_cached = 0;  // kept for the prefix cache only
  int64_t preemptions = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0;  // sums since start
};

class Scheduler {
 public:
  static std::unique_ptr<Scheduler> Create(const SchedulerOptions& options);
  virtual ~Scheduler() = default;

  // Adds a request. REQUIRES: prompt and max_tokens fit num_blocks,
  // num_candidates <= max_num_seqs, the id is new.
  // Returns false if the waiting list is full.
  virtual bool Add(SchedulerRequest request) = 0;
  // Ends a request or one candidate; blocks are free once no step uses them.
  // Unknown ids are ignored.
  virtual void Cancel(RequestId request) = 0;
  virtual void FinishCandidate(RequestId request, int32_t candidate) = 0;
  // A paused request is not planned (its reader is slow) and keeps its blocks
  // until somebody else needs them.
  virtual void SetPaused(RequestId request, bool paused) = 0;

  // Decides the next step. Must be followed by Commit (also of an empty plan)
  // or AbortStep before the next Plan.
  virtual StepPlan Plan(absl::Duration now, const ResidencyView& residency) = 0;
  // Applies a step: `sampled` has one entry per candidate that got a token: for
  // a planned sequence that samples, one entry; for the last prefill chunk of a
  // request with n candidates, one entry per candidate (SequenceIds by
  // SequencesOf). Finished candidates leave.
  virtual void Commit(std::span<const SampledToken> sampled) = 0;
  // The step failed: its sequences' requests are removed; returns them.
  virtual std::vector<RequestId> AbortStep() = 0;

  // The candidates' sequences of a request, by candidate.
  virtual std::vector<SequenceId> SequencesOf(RequestId request) const = 0;
  // Frees what only the prefix cache holds; returns the number of blocks.
  virtual int64_t FlushPrefixCache() = 0;
  virtual SchedulerLoad load() const = 0;
  virtual bool idle() const = 0;  // nothing runs and nothing waits
  // Keys of adapters that running sequences use.
  virtual std::vector<AdapterKey> AdaptersInUse() const = 0;

  // CHECKs that no block is lost or held twice. For tests.
  virtual void CheckInvariants() const = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_SCHEDULER_SCHEDULER_H_
