// A BpeModel is a vocabulary and a ranked list of merges: the component
// "model" of a tokenizer.json, type BPE.
//
// A piece starts as single code points (or bytes, for a byte-level tokenizer);
// the neighbours whose pair has the lowest rank are merged, at equal rank the
// leftmost, until no pair has a rank. The time is O(n log n) in the length of
// the piece. Ids are in [0, kMaxId]. Thread-safe.

#ifndef LORIKEET_MODEL_TOKENIZER_BPE_MODEL_H_
#define LORIKEET_MODEL_TOKENIZER_BPE_MODEL_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "base/token.h"

namespace lorikeet {

class BpeModel {
 public:
  static constexpr Token kMaxId = (1 << 22) - 1;

  // Reads the model; with `byte_level`, pieces will be bytes, to be looked up
  // in the byte alphabet.
  //
  // Errors: INVALID_ARGUMENT naming field and value; UNIMPLEMENTED naming the
  // model type or a dropout.
  static absl::StatusOr<BpeModel> FromJson(const Json& model, bool byte_level);
  BpeModel(BpeModel&&) = default;  // the views in ids_ stay valid
  BpeModel& operator=(BpeModel&&) = default;

  // Appends the ids of `piece`. A code point without an entry becomes its
  // bytes, the unknown token or nothing, as the file says.
  //
  // REQUIRES: `piece` is UTF-8.
  void Encode(absl::string_view piece, std::vector<Token>* out) const;

  std::optional<Token> TokenId(absl::string_view text) const;
  // Returns nullopt if nobody has `id`.
  std::optional<absl::string_view> TokenText(Token id) const;
  int64_t token_count() const { return static_cast<int64_t>(ids_.size()); }
  // Returns the highest id + 1.
  int64_t id_limit() const { return static_cast<int64_t>(texts_.size()); }

 private:
  struct Symbol {
    Token id = 0;
    int32_t previous = -1;  // index of a symbol, -1: none
    int32_t next = -1;
  };
  struct Merge {
    int32_t rank = 0;
    Token id = 0;  // what the pair becomes
  };

  BpeModel() = default;
  absl::Status ReadOptions(const Json& model);
  absl::Status ReadVocabulary(const Json& model);
  absl::Status ReadMerges(const Json& model);
  absl::Status AddMerge(size_t rank, absl::string_view left,
                        absl::string_view right);
  void FindWordStarts();

  const Merge* FindMerge(Token left, Token right) const;
  std::vector<Token> InitialBytes(absl::string_view piece) const;
  std::vector<Token> InitialCodePoints(absl::string_view piece) const;
  bool AppendByteTokens(absl::string_view text, std::vector<Token>* out) const;
  void MergeAll(Token* ids, size_t count, std::vector<Token>* out) const;
  void MergeShort(Token* ids, size_t count, std::vector<Token>* out) const;
  void MergeLong(const Token* ids, size_t count, std::vector<Token>* out) const;

  bool byte_level_ = false;
  bool byte_fallback_ = false;
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;
  std::string subword_prefix_;
  std::string word_suffix_;
  std::optional<Token> unk_;

  std::vector<std::string> texts_;                     // by id
  std::vector<bool> has_text_;                         // by id
  absl::flat_hash_map<absl::string_view, Token> ids_;  // views into texts_
  absl::flat_hash_map<uint64_t, Merge> merges_;        // by PairKey
  std::array<Token, 256> byte_ids_ = {};      // byte alphabet; -1: no entry
  std::array<Token, 256> fallback_ids_ = {};  // <0xNN>; -1: no entry
  // A symbol that no merge puts behind another one: Mistral's "▁". -1: none.
  Token word_start_ = -1;
};

}  // namespace lorikeet

#endif  // LORIKEET_MODEL_TOKENIZER_BPE_MODEL_H_
