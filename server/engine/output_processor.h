// An OutputProcessor turns the tokens of one candidate into its output: text,
// stop conditions, what the next delta holds.
//
// All tokens are reported, also those of a stop string; the text is cut. A
// token that ends the candidate has no text unless it was asked for. Text of
// the first min_tokens tokens is not searched for stop strings.
//
// Engine thread only.

#ifndef LORIKEET_SERVER_ENGINE_OUTPUT_PROCESSOR_H_
#define LORIKEET_SERVER_ENGINE_OUTPUT_PROCESSOR_H_

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/sampling.h"
#include "model/tokenizer/incremental_decoder.h"
#include "model/tokenizer/tokenizer.h"
#include "server/engine/engine.h"
#include "server/engine/stop_matcher.h"

namespace lorikeet {

class OutputProcessor {
 public:
  // `tokenizer` may be null: then there is no text. Both must outlive this. The
  // candidate ends at `max_tokens` tokens at the latest.
  OutputProcessor(const Tokenizer* tokenizer, const EngineRequest& request,
                  int64_t max_tokens);

  // Takes the next token. Returns true if the candidate ends with it.
  // REQUIRES: it has not ended.
  bool Append(SampledRow row);
  // Ends the candidate from outside: what was held back is given out.
  void Abort();

  bool has_ended() const { return reason_.has_value(); }
  FinishReason reason() const { return *reason_; }  // REQUIRES: has_ended()
  int64_t num_tokens() const { return num_tokens_; }
  const std::optional<Token>& matched_token() const { return matched_token_; }
  const std::optional<std::string>& matched_stop() const {
    return matcher_.matched();
  }

  // True if there is something to tell.
  bool has_delta() const {
    return !delta_.tokens.empty() || !delta_.text.empty();
  }
  // Returns what has come since the last call.
  DeltaEvent TakeDelta();

 private:
  // Ends with text behind what is out: held back by matcher and decoder.
  void End(FinishReason reason);
  void AppendText(const std::string& text);

  const EngineRequest& request_;
  const int64_t max_tokens_;
  const bool wants_text_;
  std::optional<IncrementalDecoder> decoder_;  // empty = no text
  StopMatcher matcher_;
  int64_t num_tokens_ = 0;
  DeltaEvent delta_;
  std::optional<FinishReason> reason_;
  std::optional<Token> matched_token_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_OUTPUT_PROCESSOR_H_
