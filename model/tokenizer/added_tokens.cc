#include "model/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"
#include "model/tokenizer/unicode_classes.h"
#include "model/tokenizer/utf8.h"

namespace lorikeet {
namespace {

// \w of Rust's regex crate: Alphabetic, marks, digits, connectors, joiners.
absl::StatusOr<Regex> CompileWordCharacter() {
  return Regex::Compile(
      absl::StrCat("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}",
                   NewerPatternRanges("L"), NewerPatternRanges("M"),
                   NewerPatternRanges("Nd"), NewerPatternRanges("Nl"), "]"),
      {.unicode_properties = true});
}

size_t LastCodePoint(absl::string_view text) {
  size_t i = text.size() - 1;
  while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) --i;
  return i;
}

}  // namespace

void AddedTokens::Trie::Add(absl::string_view pattern, size_t token) {
  if (pattern.empty()) return;
  first_byte[static_cast<uint8_t>(pattern[0])] = true;
  uint64_t node = 0;
  for (const char c : pattern) {
    const auto [it, added] =
        edges.try_emplace(node << 8 | static_cast<uint8_t>(c),
                          static_cast<uint32_t>(token_at.size()));
    if (added) token_at.push_back(-1);
    node = it->second;
  }
  if (token_at[node] < 0) token_at[node] = static_cast<int64_t>(token);
}

size_t AddedTokens::Trie::Match(absl::string_view text, size_t at,
                                size_t* token) const {
  if (!first_byte[static_cast<uint8_t>(text[at])]) return 0;
  size_t length = 0;
  uint64_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto it = edges.find(node << 8 | static_cast<uint8_t>(text[i]));
    if (it == edges.end()) break;
    node = it->second;
    if (token_at[node] >= 0) {
      length = i + 1 - at;
      *token = static_cast<size_t>(token_at[node]);
    }
  }
  return length;
}

absl::StatusOr<AddedTokens> AddedTokens::FromJson(
    const Json& added_tokens, const BpeModel& model,
    const Normalizer& normalizer) {
  AddedTokens result;
  if (added_tokens.is_null()) return result;
  if (!added_tokens.is_array() || added_tokens.items().size() > kMaxTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("field \"added_tokens\" is ", added_tokens.TypeName(),
                     ", expected a list of at most ", kMaxTokens));
  }
  for (size_t i = 0; i < added_tokens.items().size(); ++i) {
    RETURN_IF_ERROR(result.AddToken(added_tokens.items()[i], i, model));
  }
  for (size_t i = 0; i < result.tokens_.size(); ++i) {
    AddedToken& token = result.tokens_[i];
    token.text = token.content;
    if (token.normalized) {
      ASSIGN_OR_RETURN(token.text, normalizer.Normalize(token.content));
    }
    (token.normalized ? result.normalized_ : result.raw_).Add(token.text, i);
    // The library we follow compares the decoded string with the contents of
    // special tokens, so a special token that normalizing changes stays.
    const AddedToken* same = result.Find(absl::string_view(token.text));
    token.skipped = same != nullptr && same->special;
    if (token.single_word && result.word_character_ == nullptr) {
      ASSIGN_OR_RETURN(Regex regex, CompileWordCharacter());
      result.word_character_ = std::make_shared<const Regex>(std::move(regex));
    }
  }
  return result;
}

absl::Status AddedTokens::AddToken(const Json& json, size_t index,
                                   const BpeModel& model) {
  const std::string what = absl::StrCat("added_tokens[", index, "]");
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is ", json.TypeName(), ", expected an object"));
  }
  JsonReader reader(json, what);
  AddedToken token;
  RETURN_IF_ERROR(reader.Require("content"));
  ASSIGN_OR_RETURN(token.content, reader.String("content", ""));
  ASSIGN_OR_RETURN(token.special, reader.Bool("special", false));
  ASSIGN_OR_RETURN(token.single_word, reader.Bool("single_word", false));
  ASSIGN_OR_RETURN(token.lstrip, reader.Bool("lstrip", false));
  ASSIGN_OR_RETURN(token.rstrip, reader.Bool("rstrip", false));
  ASSIGN_OR_RETURN(token.normalized, reader.Bool("normalized", !token.special));
  RETURN_IF_ERROR(reader.Int("id", 0, 0, BpeModel::kMaxId).status());
  if (token.content.size() > kMaxContentBytes) {
    return reader.Error(
        "content", absl::StrCat("has ", token.content.size(),
                                " bytes, the limit is ", kMaxContentBytes));
  }
  if (token.content.empty() || by_content_.contains(token.content)) {
    return absl::OkStatus();  // the first one counts
  }
  ASSIGN_OR_RETURN(token.id, AssignId(token, what, model));
  id_limit_ = std::max<int64_t>(id_limit_, token.id + 1);
  by_id_[token.id] = tokens_.size();
  by_content_[token.content] = tokens_.size();
  tokens_.push_back(std::move(token));
  return absl::OkStatus();
}

absl::StatusOr<Token> AddedTokens::AssignId(const AddedToken& token,
                                            const std::string& what,
                                            const BpeModel& model) const {
  if (const auto id = model.TokenId(token.content); id.has_value()) return *id;
  const Token id = static_cast<Token>(std::max(model.token_count(), id_limit_));
  if (model.TokenText(id).has_value() || id > BpeModel::kMaxId) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " field \"content\" is ", Quote(token.content),
                     ", which would get the id ", id, " of ",
                     Quote(model.TokenText(id).value_or("nothing"))));
  }
  return id;
}

bool AddedTokens::StandsAlone(absl::string_view text, size_t begin,
                              size_t end) const {
  const auto is_word = [&](size_t at) {
    const absl::StatusOr<bool> match =
        word_character_->PrefixMatch(text.substr(at, Utf8Length(text[at])));
    return match.ok() && *match;
  };
  if (begin > 0 && is_word(LastCodePoint(text.substr(0, begin)))) return false;
  return end == text.size() || !is_word(end);
}

// A match that does not count (special as text, not a single word) is still
// passed over as a whole, as in the library we follow.
std::vector<AddedTokens::Part> AddedTokens::Cut(absl::string_view text,
                                                bool normalized,
                                                bool special_as_text) const {
  std::vector<Part> parts;
  const Trie& trie = normalized ? normalized_ : raw_;
  size_t done = 0;  // end of the last part
  size_t at = 0;
  while (at < text.size() && trie.token_at.size() > 1) {
    size_t index = 0;
    const size_t length = trie.Match(text, at, &index);
    if (length == 0) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + length;
    at = end;
    const AddedToken& token = tokens_[index];
    if (special_as_text && token.special) continue;
    if (token.single_word && !StandsAlone(text, begin, end)) continue;
    if (token.lstrip) {
      begin = std::max(begin - TrailingWhiteSpace(text.substr(0, begin)), done);
    }
    if (token.rstrip) end += LeadingWhiteSpace(text.substr(end));
    if (begin > done) {
      parts.push_back({text.substr(done, begin - done), done, nullptr});
    }
    parts.push_back({text.substr(begin, end - begin), begin, &token});
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), done, nullptr});
  return parts;
}

const AddedToken* AddedTokens::Find(Token id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &tokens_[it->second];
}

const AddedToken* AddedTokens::Find(absl::string_view content) const {
  const auto it = by_content_.find(content);
  return it == by_content_.end() ? nullptr : &tokens_[it->second];
}

}  // namespace lorikeet
