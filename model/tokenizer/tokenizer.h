// A Tokenizer turns text into token ids and back, as Hugging Face's library
// does with the same tokenizer.json: id for id and character for character.
//
// Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM2) and SentencePiece-style BPE
// with byte fallback (Llama 2, Mistral). A component that is not supported is
// refused by name when the file is read; "truncation" and "padding" are not
// applied. Immutable after it is read. Thread-safe.

#ifndef LORIKEET_MODEL_TOKENIZER_TOKENIZER_H_
#define LORIKEET_MODEL_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/file_system.h"
#include "base/json.h"
#include "base/token.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/bpe_model.h"
#include "model/tokenizer/decoder.h"
#include "model/tokenizer/normalizer.h"
#include "model/tokenizer/post_processor.h"
#include "model/tokenizer/pre_tokenizer.h"

namespace lorikeet {

struct EncodeOptions {
  // Runs the post-processor, which adds such as a BOS.
  bool add_special_tokens = true;
  // Special added tokens in the text are ordinary text. Added tokens that are
  // not special are still tokens.
  bool special_as_text = false;
};

class Tokenizer {
 public:
  // Larger than any published file by a factor of ten.
  static constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;

  // Reads `dir`/tokenizer.json.
  //
  // Errors: NOT_FOUND if there is no such file; INVALID_ARGUMENT naming file,
  // field and value; UNIMPLEMENTED naming a component that is not supported.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(
      FileSystem& fs, const std::string& dir);

  // Reads the content of a tokenizer.json. Errors: as Load, without a file.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(
      absl::string_view json);

  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Returns the ids of `text`.
  //
  // Errors: INVALID_ARGUMENT if `text` is not UTF-8; RESOURCE_EXHAUSTED if a
  // regular expression of the file needs too many steps for it.
  absl::StatusOr<std::vector<Token>> Encode(
      absl::string_view text, const EncodeOptions& options = {}) const;

  // Returns the text of `ids`, always UTF-8; ids nobody has are dropped.
  std::string Decode(std::span<const Token> ids,
                     bool skip_special_tokens) const;

  // Returns the bytes of one token, for logprobs: maybe a part of a code
  // point. Special tokens are their text; an id nobody has is empty.
  std::string TokenBytes(Token id) const;

  // Returns the string that the decoder is given for `id`: the file's, before
  // it is mapped back to bytes. Nullopt if nobody has `id`, or if it is to be
  // skipped.
  std::optional<absl::string_view> DecodedToken(Token id,
                                                bool skip_special_tokens) const;

  // Returns the id whose string in the vocabulary or among the added tokens
  // is `token`.
  std::optional<Token> TokenId(absl::string_view token) const;

  // Returns true for an added token that is special.
  bool IsSpecial(Token id) const;

  // Returns the highest id + 1; ids below it may have no token.
  int64_t vocab_size() const;

  const Decoder& decoder() const { return decoder_; }

 private:
  Tokenizer(Normalizer normalizer, PreTokenizer pre_tokenizer, BpeModel model,
            AddedTokens added_tokens, PostProcessor post_processor,
            Decoder decoder);

  // Encodes what stands between two added tokens.
  absl::Status EncodeSegment(absl::string_view segment, bool at_start,
                             bool special_as_text,
                             std::vector<Token>* ids) const;

  const Normalizer normalizer_;
  const PreTokenizer pre_tokenizer_;
  const BpeModel model_;
  const AddedTokens added_tokens_;
  const PostProcessor post_processor_;
  const Decoder decoder_;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_TOKENIZER_H_
