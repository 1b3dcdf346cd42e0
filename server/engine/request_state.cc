#include "server/engine/request_state.h"

#include <algorithm>
#include <utility>

namespace lorikeet {

namespace {

int32_t FirstAdaptedPosition(const EngineRequest& request) {
  for (const RequestAdapter& adapter : request.adapters) {
    const AdapterFeatures& features = adapter.version->features;
    if (features.invocation_tokens.empty()) continue;
    // An aLoRA is the only adapter of its requests.
    const size_t begin =
        FindInvocation(request.prompt, features.invocation_tokens);
    return begin == request.prompt.size() ? RequestState::kNever
                                          : static_cast<int32_t>(begin);
  }
  return 0;
}

std::vector<AdapterKey> NeededAdapters(const EngineRequest& request,
                                       int32_t adapters_from) {
  std::vector<AdapterKey> keys;
  if (adapters_from == RequestState::kNever) return keys;
  for (const RequestAdapter& adapter : request.adapters) {
    const AdapterKey& key = adapter.version->key;
    if (std::ranges::find(keys, key) == keys.end()) keys.push_back(key);
  }
  return keys;
}

}  // namespace

RequestState::RequestState(RequestId request_id, EngineRequest r,
                           const Tokenizer* tokenizer, int64_t max_model_len,
                           std::shared_ptr<StreamBuffer> s)
    : id(request_id),
      request(std::move(r)),
      stream(std::move(s)),
      adapters_from(FirstAdaptedPosition(request)),
      needed(NeededAdapters(request, adapters_from)) {
  const int64_t prompt_tokens = static_cast<int64_t>(request.prompt.size());
  const int64_t max_tokens =
      std::min<int64_t>(request.stop.max_tokens, max_model_len - prompt_tokens);
  banned = request.stop.eos_tokens;
  banned.insert(banned.end(), request.stop.stop_token_ids.begin(),
                request.stop.stop_token_ids.end());
  candidates.reserve(static_cast<size_t>(request.sampling.n));
  for (int32_t c = 0; c < request.sampling.n; ++c) {
    candidates.emplace_back(tokenizer, request, max_tokens);
    if (wants_penalties()) candidates.back().counts.AddPrompt(request.prompt);
  }
  if (wants_prompt_logprobs()) {
    prompt_logprobs.resize(request.prompt.size() - 1);
  }
}

bool RequestState::wants_penalties() const {
  const SamplingParams& p = request.sampling;
  return p.repetition_penalty != 1 || p.presence_penalty != 0 ||
         p.frequency_penalty != 0;
}

bool RequestState::NamesAdapter(const std::string& tenant,
                                const std::string& name) const {
  return std::ranges::any_of(request.adapters,
                             [&](const RequestAdapter& adapter) {
                               const AdapterKey& key = adapter.version->key;
                               return key.tenant == tenant && key.name == name;
                             });
}

SamplingRow RequestState::NextSampling(int32_t candidate) const {
  const SamplingParams& p = request.sampling;
  const Candidate& c = candidates[static_cast<size_t>(candidate)];
  SamplingRow row;
  row.temperature = p.temperature;
  row.top_k = p.top_k;
  row.top_p = p.top_p;
  row.min_p = p.min_p;
  row.repetition_penalty = p.repetition_penalty;
  row.presence_penalty = p.presence_penalty;
  row.frequency_penalty = p.frequency_penalty;
  row.seed = p.seed;
  row.candidate = static_cast<uint64_t>(candidate);
  row.output_position = static_cast<uint64_t>(c.output.num_tokens());
  row.logit_bias = p.logit_bias;
  row.token_counts = c.counts.counts();
  if (c.output.num_tokens() < request.stop.min_tokens) row.banned = banned;
  row.num_logprobs = request.output.num_logprobs;
  return row;
}

bool RequestState::Append(int32_t candidate, SampledRow row) {
  Candidate& c = candidates[static_cast<size_t>(candidate)];
  if (wants_penalties()) c.counts.AddOutput(row.token);
  return c.output.Append(std::move(row));
}

bool RequestState::has_ended() const {
  return std::ranges::all_of(
      candidates, [](const Candidate& c) { return c.output.has_ended(); });
}

FinishedEvent RequestState::MakeFinishedEvent(int32_t candidate,
                                              absl::Duration now) const {
  const OutputProcessor& output =
      candidates[static_cast<size_t>(candidate)].output;
  FinishedEvent event;
  event.candidate = candidate;
  event.reason = output.reason();
  event.matched_token = output.matched_token();
  event.matched_stop = output.matched_stop();
  event.usage = {static_cast<int64_t>(request.prompt.size()),
                 output.num_tokens(), cached_tokens};
  const absl::Duration scheduled = times.scheduled.value_or(now);
  const absl::Duration first_token = times.first_token.value_or(now);
  event.timings.queue = scheduled - times.submitted;
  if (!needed.empty()) {
    event.timings.adapter_load =
        std::min(times.adapter_ready.value_or(scheduled), scheduled) -
        times.submitted;
  }
  event.timings.prefill = first_token - scheduled;
  event.timings.decode = now - first_token;
  event.timings.time_to_first_token = first_token - times.submitted;
  return event;
}

}  // namespace lorikeet
