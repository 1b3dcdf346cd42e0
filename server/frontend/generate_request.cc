#include "server/frontend/generate_request.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "base/status.h"
#include "base/text.h"
#include "server/frontend/error.h"

namespace lorikeet {
namespace {

// Limits of a float; NaN is outside of every range.
struct FloatRange {
  float min;
  float max;
  const char* text;
  bool min_excluded = false;

  bool Contains(float v) const {
    return (min_excluded ? v > min : v >= min) && v <= max;
  }
};

constexpr float kFloatMax = 3.402823466e38f;

// Sets *out to the value, if there is one.
absl::Status Take(absl::string_view field, const std::optional<float>& value,
                  const FloatRange& range, float* out) {
  if (!value.has_value()) return absl::OkStatus();
  if (!range.Contains(*value)) {
    return RangeError(field, absl::StrCat(*value), range.text);
  }
  *out = *value;
  return absl::OkStatus();
}

absl::Status CheckCount(absl::string_view field, size_t count, size_t max) {
  if (count <= max) return absl::OkStatus();
  absl::Status status = FieldError(
      field, absl::StrCat("has ", count, " entries, the limit is ", max));
  status = WithMetadata(std::move(status), "value", absl::StrCat(count));
  return WithMetadata(std::move(status), "limit", absl::StrCat(max));
}

absl::StatusOr<Token> CheckToken(absl::string_view field, uint32_t id,
                                 const ModelInfo& model) {
  if (id < static_cast<uint64_t>(model.vocab_size)) {
    return static_cast<Token>(id);
  }
  return RangeError(field, absl::StrCat(id),
                    absl::StrCat("[0, ", model.vocab_size, ") (vocab_size)"));
}

absl::Status SetPenalties(const SamplingInput& in, SamplingParams* out) {
  constexpr FloatRange kPenalty = {-2, 2, "[-2, 2]"};
  RETURN_IF_ERROR(Take("sampling.frequency_penalty", in.frequency_penalty,
                       kPenalty, &out->frequency_penalty));
  RETURN_IF_ERROR(Take("sampling.presence_penalty", in.presence_penalty,
                       kPenalty, &out->presence_penalty));
  return Take("sampling.repetition_penalty", in.repetition_penalty,
              {0, kFloatMax, "(0, 3.4e38]", true}, &out->repetition_penalty);
}

absl::Status SetLogitBias(const SamplingInput& in, const ModelInfo& model,
                          SamplingParams* out) {
  RETURN_IF_ERROR(CheckCount("sampling.logit_bias", in.logit_bias.size(),
                             kMaxLogitBiasEntries));
  for (const auto& [id, bias] : in.logit_bias) {
    ASSIGN_OR_RETURN(const Token token,
                     CheckToken("sampling.logit_bias key", id, model));
    float value = 0;
    RETURN_IF_ERROR(Take(absl::StrCat("sampling.logit_bias[", id, "]"), bias,
                         {-100, 100, "[-100, 100]"}, &value));
    out->logit_bias.emplace_back(token, value);
  }
  std::sort(out->logit_bias.begin(), out->logit_bias.end());
  return absl::OkStatus();
}

absl::StatusOr<SamplingParams> BuildSampling(const SamplingInput& in,
                                             const ModelInfo& model) {
  SamplingParams out;
  out.temperature = model.sampling.temperature;
  out.top_p = model.sampling.top_p;
  out.top_k = model.sampling.top_k;
  out.min_p = model.sampling.min_p;
  out.repetition_penalty = model.sampling.repetition_penalty;
  RETURN_IF_ERROR(Take("sampling.temperature", in.temperature,
                       {0, kFloatMax, "[0, 3.4e38]"}, &out.temperature));
  RETURN_IF_ERROR(
      Take("sampling.top_p", in.top_p, {0, 1, "(0, 1]", true}, &out.top_p));
  RETURN_IF_ERROR(
      Take("sampling.min_p", in.min_p, {0, 1, "[0, 1]"}, &out.min_p));
  if (in.top_k.has_value()) {
    if (*in.top_k < -1) {
      return RangeError("sampling.top_k", absl::StrCat(*in.top_k),
                        "[-1, 2147483647]");
    }
    out.top_k = std::max(*in.top_k, 0);
  }
  RETURN_IF_ERROR(SetPenalties(in, &out));
  RETURN_IF_ERROR(SetLogitBias(in, model, &out));
  out.seed = in.seed.has_value() ? *in.seed : RandomSeed();
  const uint32_t max_n = static_cast<uint32_t>(
      std::min<int64_t>(kMaxCandidates, model.max_num_seqs));
  const uint32_t n = in.n.value_or(1);
  if (n < 1 || n > max_n) {
    return RangeError("sampling.n", absl::StrCat(n),
                      absl::StrCat("[1, ", max_n, "]"));
  }
  out.n = static_cast<int32_t>(n);
  return out;
}

absl::Status CheckStopStrings(const StopInput& in) {
  RETURN_IF_ERROR(CheckCount("stop.stop", in.stop.size(), kMaxStopStrings));
  for (size_t i = 0; i < in.stop.size(); ++i) {
    const std::string field = absl::StrCat("stop.stop[", i, "]");
    const size_t bytes = in.stop[i].size();
    if (bytes < 1 || bytes > kMaxStopStringBytes) {
      return RangeError(absl::StrCat(field, " length"), absl::StrCat(bytes),
                        absl::StrCat("[1, ", kMaxStopStringBytes, "] bytes"));
    }
    if (!IsValidUtf8(in.stop[i])) {
      return FieldError(field, "is not valid UTF-8", "INVALID_UTF8");
    }
  }
  return absl::OkStatus();
}

// `room` is what the context has left behind the prompt.
absl::Status SetTokenLimits(const StopInput& in, int64_t prompt_tokens,
                            const ModelInfo& model, StopParams* out) {
  const int64_t room = model.max_model_len - prompt_tokens;
  if (in.max_tokens.has_value() && *in.max_tokens < 1) {
    return RangeError("stop.max_tokens", "0",
                      absl::StrCat("[1, ", model.max_model_len, "]"));
  }
  const int64_t max_tokens =
      in.max_tokens.has_value() ? int64_t{*in.max_tokens} : room;
  if (room < 1 || max_tokens > room) {
    const std::string wanted =
        in.max_tokens.has_value()
            ? absl::StrCat(" and stop.max_tokens ", *in.max_tokens)
            : std::string();
    absl::Status status = FieldError(
        room < 1 ? "prompt" : "stop.max_tokens",
        absl::StrCat("does not fit: the prompt's ", prompt_tokens, " tokens",
                     wanted, room < 1 ? " leave no room in" : " exceed",
                     " max_model_len ", model.max_model_len),
        "CONTEXT_LENGTH_EXCEEDED");
    status = WithMetadata(std::move(status), "prompt_tokens",
                          absl::StrCat(prompt_tokens));
    return WithMetadata(std::move(status), "limit",
                        absl::StrCat(model.max_model_len));
  }
  out->max_tokens = static_cast<int32_t>(max_tokens);
  if (in.min_tokens.value_or(0) > max_tokens) {
    return RangeError("stop.min_tokens", absl::StrCat(*in.min_tokens),
                      absl::StrCat("[0, ", max_tokens, "] (max_tokens)"));
  }
  out->min_tokens = static_cast<int32_t>(in.min_tokens.value_or(0));
  return absl::OkStatus();
}

absl::StatusOr<StopParams> BuildStop(const StopInput& in, int64_t prompt_tokens,
                                     const ModelInfo& model) {
  StopParams out;
  RETURN_IF_ERROR(SetTokenLimits(in, prompt_tokens, model, &out));
  RETURN_IF_ERROR(CheckStopStrings(in));
  out.stop = in.stop;
  RETURN_IF_ERROR(CheckCount("stop.stop_token_ids", in.stop_token_ids.size(),
                             kMaxStopTokens));
  ASSIGN_OR_RETURN(out.stop_token_ids, CheckTokens("stop.stop_token_ids",
                                                   in.stop_token_ids, model));
  if (!in.ignore_eos) out.eos_tokens = model.eos_tokens;
  out.include_stop_str_in_output = in.include_stop_str_in_output;
  return out;
}

absl::StatusOr<int32_t> TopLogprobs(absl::string_view field,
                                    const std::optional<uint32_t>& value,
                                    const ModelInfo& model) {
  if (!value.has_value()) return -1;
  const int64_t limit = std::min<int64_t>(kMaxTopLogprobs, model.vocab_size);
  if (*value > limit) {
    return RangeError(field, absl::StrCat(*value),
                      absl::StrCat("[0, ", limit, "]"));
  }
  return static_cast<int32_t>(*value);
}

absl::StatusOr<OutputParams> BuildOutput(const OutputInput& in,
                                         const ModelInfo& model) {
  OutputParams out;
  ASSIGN_OR_RETURN(out.num_logprobs,
                   TopLogprobs("output.logprobs", in.logprobs, model));
  ASSIGN_OR_RETURN(
      out.num_prompt_logprobs,
      TopLogprobs("output.prompt_logprobs", in.prompt_logprobs, model));
  out.echo = in.echo;
  out.keep_special_tokens = in.keep_special_tokens;
  out.text = !in.omit_text;
  out.return_logits = in.return_logits;
  return out;
}

}  // namespace

absl::Status CheckLabels(
    absl::string_view field,
    const std::vector<std::pair<std::string, std::string>>& labels) {
  RETURN_IF_ERROR(CheckCount(field, labels.size(), kMaxLabels));
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() > kMaxLabelKeyBytes) {
      return RangeError(absl::StrCat(field, " key length"),
                        absl::StrCat(key.size()),
                        absl::StrCat("[1, ", kMaxLabelKeyBytes, "] bytes"));
    }
    if (value.size() > kMaxLabelValueBytes) {
      return RangeError(absl::StrCat(field, "[", Escape(key), "] length"),
                        absl::StrCat(value.size()),
                        absl::StrCat("[0, ", kMaxLabelValueBytes, "] bytes"));
    }
    if (!IsValidUtf8(key) || !IsValidUtf8(value)) {
      return FieldError(field, "has an entry that is not valid UTF-8",
                        "INVALID_UTF8");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRoutingKey(const std::string& key) {
  if (key.size() <= kMaxRoutingKeyBytes) return absl::OkStatus();
  return RangeError("routing_key length", absl::StrCat(key.size()),
                    absl::StrCat("[0, ", kMaxRoutingKeyBytes, "] bytes"));
}

absl::StatusOr<std::vector<Token>> CheckTokens(absl::string_view field,
                                               const std::vector<uint32_t>& ids,
                                               const ModelInfo& model) {
  std::vector<Token> tokens;
  tokens.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= static_cast<uint64_t>(model.vocab_size)) {
      return CheckToken(absl::StrCat(field, "[", i, "]"), ids[i], model)
          .status();
    }
    tokens.push_back(static_cast<Token>(ids[i]));
  }
  return tokens;
}

absl::StatusOr<EngineRequest> BuildEngineRequest(const GenerateInput& input,
                                                 std::vector<Token> prompt,
                                                 const ModelInfo& model) {
  if (prompt.empty()) {
    return FieldError("prompt", "is empty: at least one token is needed",
                      "PROMPT_EMPTY");
  }
  RETURN_IF_ERROR(CheckLabels("labels", input.labels));
  EngineRequest request;
  ASSIGN_OR_RETURN(request.sampling, BuildSampling(input.sampling, model));
  ASSIGN_OR_RETURN(
      request.stop,
      BuildStop(input.stop, static_cast<int64_t>(prompt.size()), model));
  ASSIGN_OR_RETURN(request.output, BuildOutput(input.output, model));
  request.priority = input.priority;
  request.prompt = std::move(prompt);
  return request;
}

}  // namespace lorikeet
