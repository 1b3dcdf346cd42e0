// Small tokenizer.json texts for tests, built from parts.
//
// Pure.

#ifndef LORIKEET_TESTS_MODEL_TOKENIZER_TOKENIZER_JSON_H_
#define LORIKEET_TESTS_MODEL_TOKENIZER_TOKENIZER_JSON_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/tokenizer.h"

namespace lorikeet::testing {

// Each part is JSON.
struct TokenizerJson {
  std::string added_tokens = "[]";
  std::string normalizer = "null";
  std::string pre_tokenizer = "null";
  std::string model;
  std::string post_processor = "null";
  std::string decoder = "null";

  std::string Text() const;
  // Fails the test and returns null if the text is refused.
  std::unique_ptr<Tokenizer> Make() const;
};

// A model whose entries have the ids 0, 1, ... in this order. `options` is
// JSON in front of the vocabulary, such as R"("byte_fallback": true,)".
std::string BpeModelJson(
    const std::vector<std::string>& entries,
    const std::vector<std::pair<std::string, std::string>>& merges,
    const std::string& options = "");

// Byte-level BPE with all 256 bytes (id = byte), then "he", "ll", "hell",
// "hello", " hello" and some more; GPT-2's pattern; ByteLevel decoder.
TokenizerJson ByteLevelJson();

// Like Mistral: <unk>, <s>, </s>, <0x00>...<0xFF> at 3..258, then "▁", "a",
// "b", "▁a", "ab", "▁ab"; the normalizer with Prepend and Replace.
TokenizerJson SentencePieceJson();

// An added token; `flags` is JSON behind it, such as R"(, "lstrip": true)".
std::string AddedTokenJson(int id, const std::string& content, bool special,
                           const std::string& flags = "");

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_MODEL_TOKENIZER_TOKENIZER_JSON_H_
