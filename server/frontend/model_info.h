// What the use cases know of the served base model. Plain data, fixed when the
// server starts.

#ifndef LORIKEET_SERVER_FRONTEND_MODEL_INFO_H_
#define LORIKEET_SERVER_FRONTEND_MODEL_INFO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/token.h"

namespace lorikeet {

// Sampling of a request that says nothing: the model's generation_config.json,
// and greedy where that does not ask for sampling.
struct SamplingDefaults {
  float temperature = 0;
  float top_p = 1;
  int32_t top_k = 0;
  float min_p = 0;
  float repetition_penalty = 1;
};

struct ModelInfo {
  std::string id;   // --served-model-name: the base model as a task
  std::string dir;  // where it was read from
  std::string architecture;
  std::string dtype;             // storage of the weights, "bf16"
  std::string backend;           // "cpu"
  std::string device;            // SIMD target, "AVX3_ZEN4"
  std::string base_fingerprint;  // hex
  std::string program_version;   // "0.1.0"
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;  // tokens
  int64_t max_num_seqs = 0;   // candidates at once
  int64_t max_loras = 0;
  int64_t max_lora_rank = 0;
  int64_t max_token_bytes = 0;  // of the longest token's text
  std::vector<Token> eos_tokens;
  SamplingDefaults sampling;
  absl::Time start_time;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_MODEL_INFO_H_
