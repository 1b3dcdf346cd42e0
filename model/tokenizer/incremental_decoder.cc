#include "model/tokenizer/incremental_decoder.h"

namespace lorikeet {

IncrementalDecoder::IncrementalDecoder(const Tokenizer& tokenizer,
                                       bool skip_special_tokens,
                                       bool at_start_of_text)
    : tokenizer_(&tokenizer),
      skip_special_tokens_(skip_special_tokens),
      state_(tokenizer.decoder().Start(
          {.streaming = true, .at_start_of_text = at_start_of_text})) {}

std::string IncrementalDecoder::Append(Token id) {
  std::string text;
  const auto token = tokenizer_->DecodedToken(id, skip_special_tokens_);
  if (token.has_value()) {
    tokenizer_->decoder().Append(*token, &state_, &text);
  }
  return text;
}

std::string IncrementalDecoder::Finish() {
  std::string text;
  tokenizer_->decoder().Finish(&state_, &text);
  return text;
}

}  // namespace lorikeet
