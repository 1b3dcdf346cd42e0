// An IncrementalDecoder turns a stream of token ids into text, piece by piece.
//
// After each token all text is given out that later tokens cannot change:
// everything but an unfinished code point at the end. The pieces together are
// what Tokenizer::Decode gives for all ids, with one exception: a run of byte
// tokens that turns ill-formed after a part of it was given out.
//
// A value: copy it to fork a stream. Thread-compatible.

#ifndef LORIKEET_MODEL_TOKENIZER_INCREMENTAL_DECODER_H_
#define LORIKEET_MODEL_TOKENIZER_INCREMENTAL_DECODER_H_

#include <string>

#include "base/token.h"
#include "model/tokenizer/decoder.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet {

class IncrementalDecoder {
 public:
  // With `at_start_of_text` false the stream continues another text, and the
  // space before its first word (Llama 2, Mistral) is kept.
  //
  // `tokenizer` must outlive this.
  IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens,
                     bool at_start_of_text = true);

  // Returns the text that `id` lets out; never half a code point. An id nobody
  // has gives nothing.
  std::string Append(Token id);

  // Returns what was held back, an unfinished code point as U+FFFD. Nothing
  // may be appended afterwards.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  Decoder::State state_;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_INCREMENTAL_DECODER_H_
