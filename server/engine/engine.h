// The Engine owns the device, the schedule and the one thread that uses them.
//
// Submit hands a validated request over; tokens come back on its TokenStream.
// A request holds its adapter's version from Submit to its last event. Nothing
// here blocks on a reader: a stream buffers a bounded number of deltas, and a
// request whose reader is slow is not scheduled while it is full.
//
// Submit, Cancel, load and Flush are thread-safe; all else happens on the
// engine thread.

#ifndef LORIKEET_SERVER_ENGINE_ENGINE_H_
#define LORIKEET_SERVER_ENGINE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/adapter_store.h"
#include "adapters/merge_policy.h"
#include "base/clock.h"
#include "base/token.h"
#include "kernels/ops.h"
#include "model/model.h"
#include "model/tokenizer/tokenizer.h"
#include "server/engine/gap_work.h"
#include "server/scheduler/merge_chooser.h"
#include "server/scheduler/scheduler.h"

namespace lorikeet {

// Sampling and stopping of one request; validated by the frontend.
struct SamplingParams {
  float temperature = 0;
  float top_p = 1;
  int32_t top_k = 0;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  uint64_t seed = 0;
  int32_t n = 1;
  std::vector<std::pair<Token, float>> logit_bias;
};

struct StopParams {
  int32_t max_tokens = 16;
  int32_t min_tokens = 0;
  std::vector<std::string> stop;
  std::vector<Token> stop_token_ids;
  std::vector<Token> eos_tokens;  // empty if ignore_eos
  bool include_stop_str_in_output = false;
};

struct OutputParams {
  int32_t num_logprobs = -1;         // -1 = none
  int32_t num_prompt_logprobs = -1;  // -1 = none
  bool echo = false;
  bool keep_special_tokens = false;
  bool text = true;            // false = token ids only
  bool return_logits = false;  // raw logits of the last prompt position
};

// One adapter of a request; several are a composition, the sum of their parts.
struct RequestAdapter {
  VersionRef version;
  float scale = 1;  // times the adapter's own scaling
};

struct EngineRequest {
  std::vector<Token> prompt;             // at least one, each < vocab_size
  std::vector<RequestAdapter> adapters;  // empty = base model
  SamplingParams sampling;
  StopParams stop;
  OutputParams output;
  // Which variant answers; nullopt = as the policy says: the adapter's, else
  // the engine's. Policies are for one adapter at scale 1; anything else is
  // merged only if it asks.
  std::optional<Variant> variant;
  std::optional<MergePolicy> merge_policy;
  int32_t priority = 0;
  // Nobody waits for it: it is refused while as many requests wait as half of
  // the places, and takes none of them.
  bool is_extra = false;
  std::string tenant{kDefaultTenant};
};

enum class FinishReason { kStop, kLength, kAbort };
const char* Name(FinishReason reason);  // "stop", "length", "abort"

struct TokenLogprobs {
  Token token = 0;
  float logprob = 0;
  std::vector<std::pair<Token, float>> top;
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
};

struct Timings {
  absl::Duration queue;         // submitted until first scheduled
  absl::Duration adapter_load;  // of that, waiting for the adapter
  absl::Duration prefill;
  absl::Duration decode;  // first token until the last
  absl::Duration time_to_first_token;
};

// Events of a stream, in order: Started, then Delta and Finished per candidate;
// or an error at any point, which is the last event.
struct StartedEvent {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  std::optional<Variant> variant;  // nullopt: the base model
  // Prompt logprobs (one per prompt token but the first) if asked for.
  std::vector<TokenLogprobs> prompt_logprobs;
  std::vector<float> logits;  // [vocab] if return_logits
};
struct DeltaEvent {
  int32_t candidate = 0;
  std::string text;  // whole code points; stop strings held back and cut
  std::vector<Token> tokens;
  std::vector<TokenLogprobs> logprobs;
};
struct FinishedEvent {
  int32_t candidate = 0;
  FinishReason reason = FinishReason::kStop;
  std::optional<Token> matched_token;       // a stop token that is not eos
  std::optional<std::string> matched_stop;  // a stop string
  Usage usage;
  Timings timings;
};
using StreamEvent = std::variant<StartedEvent, DeltaEvent, FinishedEvent>;

// The reader's end of one request. Thread-safe; never blocks.
class TokenStream {
 public:
  virtual ~TokenStream() = default;
  // Returns the next event; nullopt if there is none now. After the last one
  // done() is true. Deltas of one candidate that nobody has read are coalesced.
  virtual std::optional<StreamEvent> Next() = 0;
  // True when every event was read, or an error ended the stream.
  virtual bool done() const = 0;
  // OK, or why the request ended: RESOURCE_EXHAUSTED / SLOW_READER, CANCELLED,
  // INTERNAL, UNAVAILABLE / SERVER_DRAINING, an adapter's load error.
  virtual absl::Status status() const = 0;
  // `callback` runs after every change, from the engine thread or at once if
  // there is something to read; it must be quick and must not call back into
  // the engine other than Next/done/status. Pass nullptr to stop it: after
  // that call returned it does not run any more.
  virtual void SetCallback(std::function<void()> callback) = 0;
  // Ends the request within one step. Harmless when it has ended.
  virtual void Cancel() = 0;
};

struct EngineOptions {
  int64_t max_model_len = 0;
  int64_t max_num_seqs = 0;
  int64_t max_num_batched_tokens = 0;
  int64_t max_waiting_requests = 0;
  int64_t kv_cache_bytes = 0;
  DType kv_dtype = DType::kF32;
  bool prefix_caching = true;
  // Of adapters that have none of their own.
  MergePolicy merge = MergePolicy::kNever;
  int32_t max_merged = 0;  // merged variants at once; 0 = there are none
  int32_t max_buffered_deltas = 256;
  absl::Duration slow_reader_timeout = absl::Seconds(30);
  // Offline runs: requests are admitted when told, see Hold/Release.
  bool start_held = false;
};

struct EngineLoad {
  SchedulerLoad scheduler;
  int64_t steps = 0;
  int64_t generated_tokens = 0;         // since start
  double decode_tokens_per_second = 0;  // over the last seconds
  double prefix_cache_hit_rate = 0;     // over the last seconds, [0, 1]
};

// A merged variant that is there or on its way.
struct MergedInfo {
  enum class State { kWaiting, kMerging, kMerged };
  std::vector<std::pair<AdapterKey, float>> adapters;  // with their scales
  State state = State::kWaiting;
  int64_t bytes = 0;        // made so far
  int64_t bytes_total = 0;  // 0 = not known yet
  int64_t requests = 0;     // that hold it
};

// What is merged, and what `auto` sees.
struct MergeState {
  MergePolicy policy = MergePolicy::kNever;
  int32_t max_merged = 0;
  std::vector<MergedInfo> variants;
  StepCosts costs;
  absl::Duration last_merge;  // work of the last one; 0 = none yet
  std::map<AdapterKey, MergeChooser::Known> choices;
};

class Engine {
 public:
  // All but options must outlive the engine. Starts the engine thread.
  // Errors: INVALID_ARGUMENT or RESOURCE_EXHAUSTED naming the option.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      const Model& model, const Tokenizer* tokenizer, Ops& ops,
      AdapterStore& adapters, const Clock& clock, const EngineOptions& options);
  // Cancels what is running and joins.
  virtual ~Engine() = default;

  // Errors: RESOURCE_EXHAUSTED / QUEUE_FULL; UNAVAILABLE / SERVER_DRAINING;
  // INVALID_ARGUMENT / CONTEXT_LENGTH_EXCEEDED naming lengths and limit, or
  // MERGE_UNSUPPORTED naming what has no merged variant; FAILED_PRECONDITION /
  // MERGE_OFF if a merged variant is asked for and max_merged is 0.
  virtual absl::StatusOr<std::shared_ptr<TokenStream>> Submit(
      EngineRequest request) = 0;

  // Refuses new requests from now on; returns when none is left or after
  // `timeout`, with the number left.
  virtual int64_t Drain(absl::Duration timeout) = 0;
  // Ends every request that uses an adapter (DeleteAdapter with ABORT).
  virtual void AbortAdapter(const std::string& tenant,
                            const std::string& name) = 0;
  // Ends everything (after a drain's timeout) with FinishReason::kAbort.
  virtual void AbortAll() = 0;

  // Drops unused prefix-cache blocks; returns how many.
  virtual int64_t FlushPrefixCache() = 0;
  // Drops merged variants of an adapter that no request holds; returns the
  // bytes freed.
  virtual int64_t DropMerged(const std::string& tenant,
                             const std::string& name) = 0;
  virtual MergeState merge_state() = 0;
  virtual EngineLoad load() const = 0;
  virtual const EngineOptions& options() const = 0;  // with defaults resolved
  // Waits until nothing runs or waits (offline runs).
  virtual void WaitUntilIdle() = 0;
  // Held: requests queue up but no step runs. For `run --admit-seed`.
  virtual void SetHeld(bool held) = 0;
  // From when this returns the engine's thread does that work beside serving,
  // and none that was set before; null: none. Lives until it is taken away.
  virtual void SetGapWork(GapWork*) {}
  // Makes the engine's thread look for gap work again.
  virtual void Wake() {}
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_ENGINE_H_
