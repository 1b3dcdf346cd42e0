#include "server/engine/output_processor.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace lorikeet {
namespace {

bool Contains(const std::vector<Token>& tokens, Token token) {
  return std::ranges::find(tokens, token) != tokens.end();
}

}  // namespace

OutputProcessor::OutputProcessor(const Tokenizer* tokenizer,
                                 const EngineRequest& request,
                                 int64_t max_tokens)
    : request_(request),
      max_tokens_(max_tokens),
      wants_text_(request.output.text),
      matcher_(request.stop.stop, request.stop.include_stop_str_in_output) {
  const OutputParams& output = request.output;
  if (tokenizer == nullptr || (!output.text && request.stop.stop.empty())) {
    return;
  }
  decoder_.emplace(*tokenizer, !output.keep_special_tokens,
                   /*at_start_of_text=*/output.echo);
  if (!output.echo) return;
  // The prompt's text is given out with the first delta.
  for (const Token token : request.prompt) AppendText(decoder_->Append(token));
}

bool OutputProcessor::Append(SampledRow row) {
  CHECK(!has_ended());
  const StopParams& stop = request_.stop;
  ++num_tokens_;
  delta_.tokens.push_back(row.token);
  if (request_.output.num_logprobs >= 0) {
    delta_.logprobs.push_back({row.token, row.logprob, std::move(row.top)});
  }
  const bool may_stop = num_tokens_ > stop.min_tokens;
  const bool is_eos = Contains(stop.eos_tokens, row.token);
  if (may_stop && (is_eos || Contains(stop.stop_token_ids, row.token))) {
    if (!is_eos) matched_token_ = row.token;
    if (decoder_ && stop.include_stop_str_in_output) {
      std::string text;
      matcher_.Finish(&text);
      AppendText(text + decoder_->Append(row.token));
    }
    End(FinishReason::kStop);
    return true;
  }
  if (decoder_) {
    const std::string text = decoder_->Append(row.token);
    if (!may_stop) {
      AppendText(text);
    } else {
      std::string certain;
      const bool matched = matcher_.Append(text, &certain);
      AppendText(certain);
      if (matched) {
        reason_ = FinishReason::kStop;  // What follows the match is dropped.
        return true;
      }
    }
  }
  if (num_tokens_ >= max_tokens_) End(FinishReason::kLength);
  return has_ended();
}

void OutputProcessor::Abort() {
  if (!has_ended()) End(FinishReason::kAbort);
}

DeltaEvent OutputProcessor::TakeDelta() {
  return std::exchange(delta_, DeltaEvent());
}

void OutputProcessor::End(FinishReason reason) {
  reason_ = reason;
  if (!decoder_) return;
  std::string text;
  matcher_.Finish(&text);
  text += decoder_->Finish();
  AppendText(text);
}

void OutputProcessor::AppendText(const std::string& text) {
  if (wants_text_) delta_.text += text;
}

}  // namespace lorikeet
