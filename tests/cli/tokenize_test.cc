#include "cli/tokenize.h"

#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet {
namespace {

using ::testing::HasSubstr;

// "a" is 0, "b" is 1, "ab" is 2; 3 and 4 are two bytes; <s> is 5.
std::unique_ptr<Tokenizer> MakeTokenizer() {
  auto tokenizer = Tokenizer::FromJson(R"({
      "model": {"vocab": {"a": 0, "b": 1, "ab": 2, "Ã": 3, "©": 4},
                "merges": ["a b"]},
      "added_tokens": [{"id": 5, "content": "<s>", "special": true}],
      "post_processor": {"type": "TemplateProcessing", "single": [
          {"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
          "special_tokens": {"<s>": {"ids": [5]}}},
      "decoder": {"type": "ByteLevel"}})");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::string Answer(const TokenizeOptions& options, absl::string_view line) {
  const auto answer = TokenizeLine(*MakeTokenizer(), options, line);
  return answer.ok() ? *answer : std::string(answer.status().message());
}

TEST(TokenizeLineTest, ALineOfTextGivesIds) {
  EXPECT_EQ(Answer({}, "ab"), R"({"ids": [5, 2]})");
  EXPECT_EQ(Answer({.encode = {.add_special_tokens = false}}, "<s>"),
            R"({"ids": [5]})");
}

TEST(TokenizeLineTest, AJsonLineSaysHowItIsEncoded) {
  const TokenizeOptions jsonl = {.jsonl = true};
  EXPECT_EQ(Answer(jsonl, R"({"text": "ab"})"), R"({"ids": [5, 2]})");
  EXPECT_EQ(Answer(jsonl, R"({"text": "", "add_special_tokens": false})"),
            R"({"ids": []})");
  EXPECT_EQ(Answer(jsonl, R"({"text": "a<s>", "add_special_tokens": false,
                              "special_as_text": true})"),
            R"({"ids": [0]})");
}

TEST(TokenizeLineTest, IdsGiveTextAndPrefixes) {
  const TokenizeOptions detokenize = {.detokenize = true};
  EXPECT_EQ(Answer(detokenize, R"({"ids": [5, 2, 4294967295]})"),
            R"({"text": "<s>ab"})");
  EXPECT_EQ(Answer(detokenize, R"({"ids": [5, 0, 3, 4, 3], "prefixes": true,
                                   "skip_special_tokens": true})"),
            R"({"text": "aé�", "prefixes": ["", "a", "a", "aé", "aé"]})");
}

TEST(TokenizeLineTest, ABadLineIsAnErrorNamingTheField) {
  const TokenizeOptions jsonl = {.jsonl = true};
  const TokenizeOptions detokenize = {.detokenize = true};
  EXPECT_THAT(Answer(jsonl, "{"), HasSubstr("no valid JSON"));
  EXPECT_THAT(Answer(jsonl, "3"), HasSubstr("expected an object"));
  EXPECT_THAT(Answer(jsonl, "{}"), HasSubstr("\"text\" is missing"));
  EXPECT_THAT(Answer(jsonl, R"({"text": 3})"), HasSubstr("\"text\" is"));
  EXPECT_THAT(Answer(jsonl, R"({"text": "", "add_special_tokens": 1})"),
              HasSubstr("\"add_special_tokens\" is 1"));
  EXPECT_THAT(Answer(detokenize, "{}"), HasSubstr("\"ids\" is missing"));
  EXPECT_THAT(Answer(detokenize, R"({"ids": [0, -1]})"),
              HasSubstr("\"ids[1]\" is -1"));
  EXPECT_THAT(Answer({}, "a\xFF"), HasSubstr("not UTF-8"));
}

}  // namespace
}  // namespace lorikeet
