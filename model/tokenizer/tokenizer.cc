#include "model/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

// Returns the member, or null if it is missing.
const Json& Member(const Json& object, absl::string_view key) {
  static const Json* const kNull = new Json();
  const Json* member = object.Find(key);
  return member == nullptr ? *kNull : *member;
}

}  // namespace

Tokenizer::Tokenizer(Normalizer normalizer, PreTokenizer pre_tokenizer,
                     BpeModel model, AddedTokens added_tokens,
                     PostProcessor post_processor, Decoder decoder)
    : normalizer_(std::move(normalizer)),
      pre_tokenizer_(std::move(pre_tokenizer)),
      model_(std::move(model)),
      added_tokens_(std::move(added_tokens)),
      post_processor_(std::move(post_processor)),
      decoder_(std::move(decoder)) {}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(
    FileSystem& fs, const std::string& dir) {
  const std::string path = JoinPath(dir, "tokenizer.json");
  ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(path, kMaxFileBytes));
  absl::StatusOr<std::unique_ptr<Tokenizer>> result = FromJson(text);
  if (!result.ok()) return Annotate(result.status(), Escape(path));
  return result;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(
    absl::string_view text) {
  ASSIGN_OR_RETURN(const Json json, Json::Parse(text));
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the tokenizer is ", json.TypeName(), ", expected an object"));
  }
  if (json.Find("model") == nullptr) {
    return absl::InvalidArgumentError("field \"model\" is missing");
  }
  ASSIGN_OR_RETURN(Normalizer normalizer,
                   Normalizer::FromJson(Member(json, "normalizer")));
  ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer,
                   PreTokenizer::FromJson(Member(json, "pre_tokenizer")));
  ASSIGN_OR_RETURN(
      BpeModel model,
      BpeModel::FromJson(Member(json, "model"), pre_tokenizer.byte_level()));
  ASSIGN_OR_RETURN(
      AddedTokens added,
      AddedTokens::FromJson(Member(json, "added_tokens"), model, normalizer));
  const auto is_known = [&](Token id) {
    return added.Find(id) != nullptr || model.TokenText(id).has_value();
  };
  ASSIGN_OR_RETURN(
      PostProcessor post_processor,
      PostProcessor::FromJson(Member(json, "post_processor"), is_known));
  ASSIGN_OR_RETURN(Decoder decoder, Decoder::FromJson(Member(json, "decoder")));
  return absl::WrapUnique(new Tokenizer(
      std::move(normalizer), std::move(pre_tokenizer), std::move(model),
      std::move(added), std::move(post_processor), std::move(decoder)));
}

absl::StatusOr<std::vector<Token>> Tokenizer::Encode(
    absl::string_view text, const EncodeOptions& options) const {
  if (!IsValidUtf8(text)) {
    return absl::InvalidArgumentError("the text is not UTF-8");
  }
  std::vector<Token> ids;
  ids.reserve(text.size() / 3 + 8);
  for (const AddedTokens::Part& part :
       added_tokens_.Cut(text, /*normalized=*/false, options.special_as_text)) {
    if (part.token != nullptr) {
      ids.push_back(part.token->id);
      continue;
    }
    RETURN_IF_ERROR(EncodeSegment(part.text, part.begin == 0,
                                  options.special_as_text, &ids));
  }
  return post_processor_.Process(std::move(ids), options.add_special_tokens);
}

absl::Status Tokenizer::EncodeSegment(absl::string_view segment, bool at_start,
                                      bool special_as_text,
                                      std::vector<Token>* ids) const {
  std::string normalized;
  if (!normalizer_.is_identity()) {
    ASSIGN_OR_RETURN(normalized, normalizer_.Normalize(segment));
    segment = normalized;
  }
  for (const AddedTokens::Part& part :
       added_tokens_.Cut(segment, /*normalized=*/true, special_as_text)) {
    if (part.token != nullptr) {
      ids->push_back(part.token->id);
      continue;
    }
    PieceList list;
    list.pieces.push_back({part.text, at_start && part.begin == 0});
    RETURN_IF_ERROR(pre_tokenizer_.Cut(&list));
    for (const Piece& piece : list.pieces) model_.Encode(piece.text, ids);
  }
  return absl::OkStatus();
}

std::string Tokenizer::Decode(std::span<const Token> ids,
                              bool skip_special_tokens) const {
  std::string text;
  Decoder::State state = decoder_.Start({});
  for (const Token id : ids) {
    const auto token = DecodedToken(id, skip_special_tokens);
    if (token.has_value()) decoder_.Append(*token, &state, &text);
  }
  decoder_.Finish(&state, &text);
  return text;
}

std::string Tokenizer::TokenBytes(Token id) const {
  const AddedToken* added = added_tokens_.Find(id);
  if (added != nullptr && added->special) return added->content;
  const auto token = DecodedToken(id, /*skip_special_tokens=*/false);
  return token.has_value() ? decoder_.TokenBytes(*token) : "";
}

std::optional<absl::string_view> Tokenizer::DecodedToken(
    Token id, bool skip_special_tokens) const {
  const AddedToken* added = added_tokens_.Find(id);
  if (added == nullptr) return model_.TokenText(id);
  if (skip_special_tokens && added->skipped) return std::nullopt;
  return added->text;
}

std::optional<Token> Tokenizer::TokenId(absl::string_view token) const {
  const AddedToken* added = added_tokens_.Find(token);
  if (added != nullptr) return added->id;
  return model_.TokenId(token);
}

bool Tokenizer::IsSpecial(Token id) const {
  const AddedToken* added = added_tokens_.Find(id);
  return added != nullptr && added->special;
}

int64_t Tokenizer::vocab_size() const {
  return std::max(model_.id_limit(), added_tokens_.id_limit());
}

}  // namespace lorikeet
