// What the engine keeps of a request from Submit to its last event.
//
// Made by the submitting thread, then engine thread only.

#ifndef LORIKEET_SERVER_ENGINE_REQUEST_STATE_H_
#define LORIKEET_SERVER_ENGINE_REQUEST_STATE_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "kernels/sampling.h"
#include "server/engine/engine.h"
#include "server/engine/output_processor.h"
#include "server/engine/token_counts.h"
#include "server/engine/token_stream.h"
#include "server/scheduler/scheduler.h"

namespace lorikeet {

// Moments of a request's life, on Clock::Now(); empty = not yet.
struct Milestones {
  absl::Duration submitted;
  std::optional<absl::Duration> adapter_ready;
  std::optional<absl::Duration> scheduled;
  std::optional<absl::Duration> first_token;
};

struct Candidate {
  Candidate(const Tokenizer* tokenizer, const EngineRequest& request,
            int64_t max_tokens)
      : output(tokenizer, request, max_tokens) {}

  OutputProcessor output;
  TokenCounts counts;         // only if a penalty is on
  bool was_reported = false;  // its FinishedEvent is out
};

struct RequestState {
  // `max_model_len` limits prompt and output together.
  RequestState(RequestId id, EngineRequest request, const Tokenizer* tokenizer,
               int64_t max_model_len, std::shared_ptr<StreamBuffer> stream);

  // Returns what Sample needs to know of the next token of a candidate. Spans
  // point into this.
  SamplingRow NextSampling(int32_t candidate) const;
  // Takes the next token of a candidate; true if the candidate ends with it.
  bool Append(int32_t candidate, SampledRow row);
  bool has_ended() const;
  // Returns the event of a candidate that has ended.
  FinishedEvent MakeFinishedEvent(int32_t candidate, absl::Duration now) const;

  bool wants_prompt_logprobs() const {
    return request.output.num_prompt_logprobs >= 0;
  }
  bool wants_penalties() const;
  bool NamesAdapter(const std::string& tenant, const std::string& name) const;

  const RequestId id;
  const EngineRequest request;
  const std::shared_ptr<StreamBuffer> stream;
  // The adapters act from this position on: 0; of an aLoRA where its invocation
  // begins; kNever if the prompt has none.
  static constexpr int32_t kNever = std::numeric_limits<int32_t>::max();
  const int32_t adapters_from;
  // What must be on the device, none twice; empty if adapters_from is kNever.
  const std::vector<AdapterKey> needed;
  std::vector<KvDomainStart> domains;
  Milestones times;
  std::vector<Token> banned;  // before min_tokens
  std::vector<Candidate> candidates;

  bool has_started = false;  // StartedEvent is out
  bool has_forked = false;   // its candidates have their first tokens
  bool is_touched = false;   // by the step being published
  int64_t cached_tokens = 0;
  std::vector<TokenLogprobs> prompt_logprobs;  // by position
  std::vector<float> logits;                   // of the last prompt position
  std::optional<absl::Duration> paused_since;  // its stream is full
};

using RequestTable =
    absl::flat_hash_map<RequestId, std::unique_ptr<RequestState>>;

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_REQUEST_STATE_H_
