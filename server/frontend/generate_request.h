// A GenerateInput is a generation as a caller wrote it: absent fields are
// nullopt. BuildEngineRequest checks every field and fills in the defaults.
//
// Every limit stands here; the messages name field, value and limit.
// Pure.

#ifndef LORIKEET_SERVER_FRONTEND_GENERATE_REQUEST_H_
#define LORIKEET_SERVER_FRONTEND_GENERATE_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/token.h"
#include "server/engine/engine.h"
#include "server/frontend/composition.h"
#include "server/frontend/model_info.h"

namespace lorikeet {

inline constexpr uint32_t kMaxCandidates = 64;
inline constexpr uint32_t kMaxTopLogprobs = 32;
inline constexpr size_t kMaxStopStrings = 16;
inline constexpr size_t kMaxStopStringBytes = 256;
inline constexpr size_t kMaxStopTokens = 64;
inline constexpr size_t kMaxLogitBiasEntries = 1024;
inline constexpr size_t kMaxRoutingKeyBytes = 256;
inline constexpr size_t kMaxLabels = 16;
inline constexpr size_t kMaxLabelKeyBytes = 63;
inline constexpr size_t kMaxLabelValueBytes = 255;

struct SamplingInput {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> frequency_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> repetition_penalty;
  std::optional<uint64_t> seed;
  std::optional<uint32_t> n;
  std::vector<std::pair<uint32_t, float>> logit_bias;
};

struct StopInput {
  std::optional<uint32_t> max_tokens;
  std::optional<uint32_t> min_tokens;
  std::vector<std::string> stop;
  std::vector<uint32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;
};

struct OutputInput {
  std::optional<uint32_t> logprobs;
  std::optional<uint32_t> prompt_logprobs;
  bool echo = false;
  bool keep_special_tokens = false;
  bool omit_text = false;
  bool return_logits = false;  // raw logits of the last prompt position
};

struct GenerateInput {
  // Exactly one of the two: a task, or adapters to sum.
  std::string task;
  std::vector<AdapterPart> adapters;
  // Exactly one of the two.
  std::optional<std::string> text;
  std::optional<std::vector<uint32_t>> token_ids;
  bool parse_special_tokens = false;
  bool omit_special_tokens = false;
  SamplingInput sampling;
  StopInput stop;
  OutputInput output;
  int32_t priority = 0;
  // Who asks: the same key gets the same target of an alias. Empty = stable.
  std::string routing_key;
  std::vector<std::pair<std::string, std::string>> labels;
};

// Free key-value pairs of requests and adapters.
// Errors: INVALID_ARGUMENT naming `field`, value and limit.
absl::Status CheckLabels(
    absl::string_view field,
    const std::vector<std::pair<std::string, std::string>>& labels);

// Errors: INVALID_ARGUMENT naming the length and the limit.
absl::Status CheckRoutingKey(const std::string& key);

// Returns ids as tokens.
// Errors: INVALID_ARGUMENT naming `field`, the index, the id and vocab_size.
absl::StatusOr<std::vector<Token>> CheckTokens(absl::string_view field,
                                               const std::vector<uint32_t>& ids,
                                               const ModelInfo& model);

// Returns what the engine runs for `input` with its text already tokenized to
// `prompt`, but for the adapters.
// Errors: INVALID_ARGUMENT naming field, value and limit; with the reason
// CONTEXT_LENGTH_EXCEEDED if prompt and max_tokens do not fit the model.
absl::StatusOr<EngineRequest> BuildEngineRequest(const GenerateInput& input,
                                                 std::vector<Token> prompt,
                                                 const ModelInfo& model);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_GENERATE_REQUEST_H_
