#include "loadgen/workload.h"

#include <utility>

#include "base/check.h"

namespace lorikeet {
namespace {

// Keys of the choices; any four different numbers.
enum Choice : uint64_t { kAdapter = 1, kArrival, kLength, kPrompt };

// One step of SplitMix64 (Steele et al., OOPSLA 2014): neighbouring seeds give
// unrelated sequences.
uint64_t SubSeed(uint64_t seed, Choice choice) {
  uint64_t z = seed * 4 + choice + 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

}  // namespace

Workload::Workload(WorkloadOptions options)
    : options_(std::move(options)),
      picker_(options_.popularity, options_.tasks.size(), options_.zipf_s,
              SubSeed(options_.seed, kAdapter)),
      length_rng_(SubSeed(options_.seed, kLength)),
      prompt_rng_(SubSeed(options_.seed, kPrompt)) {
  if (options_.requests_per_second) {
    arrivals_.emplace(*options_.requests_per_second,
                      SubSeed(options_.seed, kArrival));
  }
  for (const LoadTask& task : options_.tasks) {
    CHECK(!task.prompts.empty() || !options_.alphabet.empty());
  }
}

std::optional<LoadRequest> Workload::Next(absl::Duration elapsed) {
  if (options_.num_requests > 0 && made_ >= options_.num_requests) {
    return std::nullopt;
  }
  LoadRequest request;
  if (arrivals_) request.start = arrivals_->Next();
  if (request.start.value_or(elapsed) >= options_.duration) {
    return std::nullopt;
  }
  ++made_;
  request.task = picker_.Next();
  const uint32_t prompt_tokens = options_.prompt_tokens.Sample(length_rng_);
  const uint32_t output_tokens = options_.output_tokens.Sample(length_rng_);
  const std::vector<PromptChoice>& prompts =
      options_.tasks[request.task].prompts;
  if (!prompts.empty()) {
    const PromptChoice& choice = prompts[prompt_rng_.Below(prompts.size())];
    request.text = choice.text;
    request.max_tokens = choice.max_tokens;
    return request;
  }
  request.token_ids.reserve(prompt_tokens);
  for (uint32_t i = 0; i < prompt_tokens; ++i) {
    request.token_ids.push_back(
        options_.alphabet[prompt_rng_.Below(options_.alphabet.size())]);
  }
  request.max_tokens = output_tokens;
  request.ignore_eos = true;
  return request;
}

}  // namespace lorikeet
