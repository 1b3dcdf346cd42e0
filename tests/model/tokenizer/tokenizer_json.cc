#include "tests/model/tokenizer/tokenizer_json.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/json.h"
#include "model/tokenizer/byte_alphabet.h"

namespace lorikeet::testing {

std::string TokenizerJson::Text() const {
  return absl::StrCat(
      R"({"version": "1.0", "added_tokens": )", added_tokens,
      R"(, "normalizer": )", normalizer, R"(, "pre_tokenizer": )",
      pre_tokenizer, R"(, "post_processor": )", post_processor,
      R"(, "decoder": )", decoder, R"(, "model": )", model, "}");
}

std::unique_ptr<Tokenizer> TokenizerJson::Make() const {
  auto tokenizer = Tokenizer::FromJson(Text());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::string BpeModelJson(
    const std::vector<std::string>& entries,
    const std::vector<std::pair<std::string, std::string>>& merges,
    const std::string& options) {
  Json vocabulary = Json::Object();
  for (size_t i = 0; i < entries.size(); ++i) {
    vocabulary.Set(entries[i], static_cast<int64_t>(i));
  }
  Json list = Json::Array();
  for (const auto& [left, right] : merges) {
    list.Append(absl::StrCat(left, " ", right));
  }
  return absl::StrCat(R"({"type": "BPE", )", options, R"("vocab": )",
                      vocabulary.Dump(), R"(, "merges": )", list.Dump(), "}");
}

TokenizerJson ByteLevelJson() {
  std::vector<std::string> entries;
  for (int b = 0; b < 256; ++b) {
    entries.emplace_back(ByteAlphabetCharacter(static_cast<uint8_t>(b)));
  }
  const std::vector<std::pair<std::string, std::string>> merges = {
      {"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {"Ġ", "hello"},
      {"Ã", "©"}, {"Ġ", "Ġ"}, {"1", "2"},   {"Ċ", "Ċ"}};
  for (const auto& [left, right] : merges) entries.push_back(left + right);
  TokenizerJson json;
  json.model = BpeModelJson(entries, merges);
  json.pre_tokenizer =
      R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})";
  json.decoder = R"({"type": "ByteLevel"})";
  return json;
}

TokenizerJson SentencePieceJson() {
  std::vector<std::string> entries = {"<unk>", "<s>", "</s>"};
  for (int b = 0; b < 256; ++b) {
    entries.push_back(absl::StrFormat("<0x%02X>", b));
  }
  for (const char* text : {"▁", "a", "b", "▁a", "ab", "▁ab"}) {
    entries.emplace_back(text);
  }
  TokenizerJson json;
  json.model = BpeModelJson(
      entries, {{"a", "b"}, {"▁", "ab"}, {"▁", "a"}},
      R"("byte_fallback": true, "fuse_unk": true, "unk_token": "<unk>", )");
  json.added_tokens = absl::StrCat("[", AddedTokenJson(0, "<unk>", true), ",",
                                   AddedTokenJson(1, "<s>", true), ",",
                                   AddedTokenJson(2, "</s>", true), "]");
  json.normalizer = R"({"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})";
  json.post_processor = R"({"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "<s>", "type_id": 0}},
      {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}})";
  json.decoder = R"({"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";
  return json;
}

std::string AddedTokenJson(int id, const std::string& content, bool special,
                           const std::string& flags) {
  return absl::StrCat(
      R"({"id": )", id, R"(, "content": )", Json(content).Dump(),
      R"(, "special": )", special ? "true" : "false",
      flags.find("normalized") == std::string::npos ? R"(, "normalized": false)"
                                                    : "",
      flags, "}");
}

}  // namespace lorikeet::testing
