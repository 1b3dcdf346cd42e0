#include "model/tokenizer/post_processor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"
#include "model/tokenizer/bpe_model.h"

namespace lorikeet {
namespace {

using IsKnown = absl::FunctionRef<bool(Token)>;

absl::StatusOr<Token> ReadId(const Json& id, const std::string& field,
                             IsKnown is_known) {
  if (id.is_int() && id.AsInt() >= 0 && id.AsInt() <= BpeModel::kMaxId &&
      is_known(static_cast<Token>(id.AsInt()))) {
    return static_cast<Token>(id.AsInt());
  }
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", Escape(id.Dump(), 40),
                   ", expected the id of ", "an entry of the vocabulary"));
}

// Returns the ids of the special token that a template calls `name`.
absl::StatusOr<std::vector<Token>> ReadSpecialIds(const Json* special_tokens,
                                                  absl::string_view name,
                                                  const std::string& what,
                                                  IsKnown is_known) {
  const std::string field =
      absl::StrCat(what, " field \"special_tokens.", Escape(name), ".ids\"");
  const Json* token =
      special_tokens == nullptr ? nullptr : special_tokens->Find(name);
  const Json* ids = token == nullptr ? nullptr : token->Find("ids");
  if (ids == nullptr || !ids->is_array() ||
      ids->items().size() > PostProcessor::kMaxTemplatePieces) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " is no list of at most ",
                     PostProcessor::kMaxTemplatePieces, " ids"));
  }
  std::vector<Token> result;
  for (const Json& id : ids->items()) {
    ASSIGN_OR_RETURN(const Token token_id, ReadId(id, field, is_known));
    result.push_back(token_id);
  }
  return result;
}

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::FromJson(const Json& json,
                                                      IsKnown is_known) {
  PostProcessor result;
  if (!json.is_null()) {
    RETURN_IF_ERROR(result.Add(json, "post_processor", is_known));
  }
  return result;
}

absl::Status PostProcessor::Add(const Json& json, const std::string& what,
                                IsKnown is_known) {
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is ", json.TypeName(), ", expected an object"));
  }
  JsonReader reader(json, what);
  RETURN_IF_ERROR(reader.Require("type"));
  ASSIGN_OR_RETURN(const std::string type, reader.String("type", ""));
  if (type == "ByteLevel") return absl::OkStatus();  // positions only
  if (!pieces_.empty() && type != "Sequence") {
    return absl::UnimplementedError(
        absl::StrCat(what, " (", Quote(type), ") is a second template"));
  }
  if (type == "TemplateProcessing") return AddTemplate(json, what, is_known);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    return AddPair(json, what, is_known);
  }
  if (type == "Sequence") {
    const Json* parts = reader.Get("processors");
    if (parts == nullptr || !parts->is_array()) {
      return reader.Error("processors", "is no list");
    }
    for (size_t i = 0; i < parts->items().size(); ++i) {
      RETURN_IF_ERROR(Add(parts->items()[i],
                          absl::StrCat(what, ".processors[", i, "]"),
                          is_known));
    }
    return absl::OkStatus();
  }
  return absl::UnimplementedError(absl::StrCat(
      what, " has the unsupported type ", Quote(type),
      " (supported: BertProcessing, ByteLevel, RobertaProcessing, Sequence, "
      "TemplateProcessing)"));
}

absl::Status PostProcessor::AddTemplate(const Json& json,
                                        const std::string& what,
                                        IsKnown is_known) {
  JsonReader reader(json, what);
  const Json* single = reader.Get("single");
  if (single == nullptr || !single->is_array() ||
      single->items().size() > kMaxTemplatePieces) {
    return reader.Error("single", absl::StrCat("is no list of at most ",
                                               kMaxTemplatePieces, " pieces"));
  }
  std::vector<TemplatePiece> result;
  size_t texts = 0;
  for (size_t i = 0; i < single->items().size(); ++i) {
    const Json& piece = single->items()[i];
    const Json* sequence = piece.Find("Sequence");
    const Json* special = piece.Find("SpecialToken");
    const Json* body = sequence != nullptr ? sequence : special;
    const Json* id = body == nullptr ? nullptr : body->Find("id");
    if (id == nullptr || !id->is_string() ||
        (sequence != nullptr && id->AsString() != "A")) {
      return reader.Error(
          absl::StrCat("single[", i, "]"),
          absl::StrCat("is ", Escape(piece.Dump(), 80),
                       ", expected Sequence with id \"A\" or SpecialToken"));
    }
    if (sequence != nullptr) {
      result.push_back({.is_text = true});
      ++texts;
      continue;
    }
    ASSIGN_OR_RETURN(std::vector<Token> ids,
                     ReadSpecialIds(reader.Get("special_tokens"),
                                    id->AsString(), what, is_known));
    result.push_back({.is_text = false, .ids = std::move(ids)});
  }
  if (texts != 1) {
    return reader.Error("single", absl::StrCat("has the sequence A ", texts,
                                               " times, expected once"));
  }
  pieces_ = std::move(result);
  return absl::OkStatus();
}

// "cls": ["<s>", 0] goes before the text, "sep": ["</s>", 2] behind it.
absl::Status PostProcessor::AddPair(const Json& json, const std::string& what,
                                    IsKnown is_known) {
  JsonReader reader(json, what);
  const auto read = [&](const char* key) -> absl::StatusOr<TemplatePiece> {
    const Json* pair = reader.Get(key);
    if (pair == nullptr || !pair->is_array() || pair->items().size() != 2) {
      return reader.Error(key, "is no pair of a token and its id");
    }
    ASSIGN_OR_RETURN(
        const Token id,
        ReadId(pair->items()[1], absl::StrCat(what, " field \"", key, "\""),
               is_known));
    return TemplatePiece{.is_text = false, .ids = {id}};
  };
  ASSIGN_OR_RETURN(TemplatePiece cls, read("cls"));
  ASSIGN_OR_RETURN(TemplatePiece sep, read("sep"));
  pieces_ = {std::move(cls), {.is_text = true}, std::move(sep)};
  return absl::OkStatus();
}

std::vector<Token> PostProcessor::Process(std::vector<Token> ids,
                                          bool add_special_tokens) const {
  if (!add_special_tokens || pieces_.empty()) return ids;
  std::vector<Token> result;
  result.reserve(ids.size() + pieces_.size());
  for (const TemplatePiece& piece : pieces_) {
    const std::vector<Token>& part = piece.is_text ? ids : piece.ids;
    result.insert(result.end(), part.begin(), part.end());
  }
  return result;
}

}  // namespace lorikeet
