// AddedTokens are the entries that are cut out of a text before anything else
// looks at it, such as "<|im_end|>": "added_tokens" of a tokenizer.json.
//
// The leftmost match comes first, at one place the longest. An entry that the
// vocabulary has keeps that id; others get the ids behind the vocabulary in
// the order of the file, whatever id it writes, as in the library we follow.
// Thread-safe.

#ifndef LORIKEET_MODEL_TOKENIZER_ADDED_TOKENS_H_
#define LORIKEET_MODEL_TOKENIZER_ADDED_TOKENS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "base/regex.h"
#include "base/token.h"
#include "model/tokenizer/bpe_model.h"
#include "model/tokenizer/normalizer.h"

namespace lorikeet {

struct AddedToken {
  std::string content;
  // What the id is decoded to: the content, normalized if `normalized`.
  std::string text;
  Token id = 0;
  bool special = false;
  bool skipped = false;      // when decoding without special tokens
  bool single_word = false;  // no word character may stand beside it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = false;   // is looked for in the normalized text
};

class AddedTokens {
 public:
  // A part of a text: one added token, or what lies between two.
  struct Part {
    absl::string_view text;
    size_t begin = 0;  // where it stood in the text
    const AddedToken* token = nullptr;
  };

  static constexpr size_t kMaxTokens = 1 << 16;
  static constexpr size_t kMaxContentBytes = 1024;

  AddedTokens() = default;  // none

  // Errors: INVALID_ARGUMENT naming field and value.
  static absl::StatusOr<AddedTokens> FromJson(const Json& added_tokens,
                                              const BpeModel& model,
                                              const Normalizer& normalizer);

  // Cuts the raw text (entries with normalized false), or a normalized one
  // (the others). Empty parts between tokens vanish. With `special_as_text`,
  // special tokens are no tokens.
  std::vector<Part> Cut(absl::string_view text, bool normalized,
                        bool special_as_text) const;

  // Returns nullptr if `id` is no added token.
  const AddedToken* Find(Token id) const;
  const AddedToken* Find(absl::string_view content) const;
  // Returns the highest id + 1; 0 if there are none.
  int64_t id_limit() const { return id_limit_; }

 private:
  // A trie over the bytes of the patterns; node 0 is the root.
  struct Trie {
    void Add(absl::string_view pattern, size_t token);
    // Returns the length of the longest pattern at `at`, 0 if there is none.
    size_t Match(absl::string_view text, size_t at, size_t* token) const;

    std::array<bool, 256> first_byte = {};
    absl::flat_hash_map<uint64_t, uint32_t> edges;  // node << 8 | byte
    std::vector<int64_t> token_at = {-1};           // by node
  };

  absl::Status AddToken(const Json& json, size_t index, const BpeModel& model);
  absl::StatusOr<Token> AssignId(const AddedToken& token,
                                 const std::string& what,
                                 const BpeModel& model) const;
  bool StandsAlone(absl::string_view text, size_t begin, size_t end) const;

  std::vector<AddedToken> tokens_;
  absl::flat_hash_map<Token, size_t> by_id_;
  absl::flat_hash_map<std::string, size_t> by_content_;
  int64_t id_limit_ = 0;
  Trie raw_;
  Trie normalized_;
  std::shared_ptr<const Regex> word_character_;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_ADDED_TOKENS_H_
