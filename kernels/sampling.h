// What the Sample operator needs to know of a row, and what it answers.
//
// Plain data.

#ifndef LORIKEET_KERNELS_SAMPLING_H_
#define LORIKEET_KERNELS_SAMPLING_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/token.h"

namespace lorikeet {

// Order of operations on a row of logits: bias, repetition / presence /
// frequency penalties, banned tokens, temperature, top-k, top-p, min-p
// (relative to the best), draw. temperature 0 = greedy: the largest logit after
// penalties, ties to the lowest id. Tokens of equal probability at a cut are
// kept from the lowest id up.
struct SamplingRow {
  float temperature = 0;         // >= 0
  int32_t top_k = 0;             // 0 = off
  float top_p = 1;               // in (0, 1]
  float min_p = 0;               // in [0, 1]
  float repetition_penalty = 1;  // > 0; tokens of prompt and output
  float presence_penalty = 0;    // tokens of the output
  float frequency_penalty = 0;   // times count in the output
  // The draw uses PhiloxUniform(seed, candidate, output_position).
  uint64_t seed = 0;
  uint64_t candidate = 0;
  uint64_t output_position = 0;
  // Added to logits.
  std::span<const std::pair<Token, float>> logit_bias;
  // Distinct tokens seen in prompt or output, with their count in the output
  // (0 = prompt only). Only read if a penalty is on. Any order.
  std::span<const std::pair<Token, int32_t>> token_counts;
  // Never chosen (end of sequence before min_tokens).
  std::span<const Token> banned;
  // Optional set of allowed tokens, one bit per id; empty = all.
  std::span<const uint64_t> allowed_bits;
  // -1 = no logprobs; 0 = the chosen token only; n = the n best as well.
  int32_t num_logprobs = -1;
};

struct SampledRow {
  Token token = 0;
  // Natural log-probabilities of the raw logits (before bias and penalties).
  float logprob = 0;
  std::vector<std::pair<Token, float>> top;  // best first, ties by id
};

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_SAMPLING_H_
