#include "model/tokenizer/tokenizer.h"

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/text.h"
#include "model/tokenizer/incremental_decoder.h"
#include "model/tokenizer/utf8.h"
#include "tests/model/tokenizer/tokenizer_json.h"

namespace lorikeet {
namespace {

using ::lorikeet::testing::AddedTokenJson;
using ::lorikeet::testing::BpeModelJson;
using ::lorikeet::testing::ByteLevelJson;
using ::lorikeet::testing::SentencePieceJson;
using ::lorikeet::testing::TokenizerJson;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<Token> Encode(const Tokenizer& tokenizer, absl::string_view text,
                          const EncodeOptions& options = {}) {
  const auto ids = tokenizer.Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.value_or(std::vector<Token>());
}

// Ids of the SentencePiece tokenizer.
constexpr Token kSpace = 259, kA = 260, kB = 261, kSpaceA = 262, kSpaceAb = 264;

// Byte-level with added tokens from id 265; all entries are "x" or bytes.
TokenizerJson WithAdded(const std::vector<std::string>& tokens) {
  TokenizerJson json = ByteLevelJson();
  json.added_tokens = "[";
  for (const std::string& token : tokens) {
    absl::StrAppend(&json.added_tokens, json.added_tokens.size() > 1 ? "," : "",
                    token);
  }
  json.added_tokens += "]";
  return json;
}

TEST(TokenizerTest, EncodesBytesAndMerges) {
  const auto tokenizer = ByteLevelJson().Make();
  EXPECT_THAT(Encode(*tokenizer, "hello hello"), ElementsAre(259, 260));
  EXPECT_THAT(Encode(*tokenizer, "é"), ElementsAre(261));
  EXPECT_THAT(Encode(*tokenizer, ""), IsEmpty());
}

TEST(TokenizerTest, EverySegmentOfSentencePieceGetsItsSpace) {
  const auto tokenizer = SentencePieceJson().Make();
  EXPECT_THAT(Encode(*tokenizer, "ab"), ElementsAre(1, kSpaceAb));
  EXPECT_THAT(Encode(*tokenizer, " a"), ElementsAre(1, kSpace, kSpaceA));
  EXPECT_THAT(Encode(*tokenizer, "a</s>b", {.add_special_tokens = false}),
              ElementsAre(kSpaceA, 2, kSpace, kB));
  EXPECT_THAT(Encode(*tokenizer, ""), ElementsAre(1));
}

TEST(TokenizerTest, ByteFallbackWritesUnknownCodePointsAsBytes) {
  const auto tokenizer = SentencePieceJson().Make();
  EXPECT_THAT(Encode(*tokenizer, "a\n", {.add_special_tokens = false}),
              ElementsAre(kSpaceA, 3 + 10));
  EXPECT_THAT(Encode(*tokenizer, "é", {.add_special_tokens = false}),
              ElementsAre(kSpace, 3 + 0xC3, 3 + 0xA9));
}

TEST(TokenizerTest, TheTemplateRunsOnlyOnRequest) {
  const auto tokenizer = SentencePieceJson().Make();
  EXPECT_THAT(Encode(*tokenizer, "<s>a"), ElementsAre(1, 1, kSpaceA));
  EXPECT_THAT(Encode(*tokenizer, "<s>a", {.add_special_tokens = false}),
              ElementsAre(1, kSpaceA));
}

TEST(TokenizerTest, RefusesTextThatIsNotUtf8) {
  const auto ids = ByteLevelJson().Make()->Encode("a\xFF");
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerTest, TheLongestAddedTokenAtOnePlaceWins) {
  const auto tokenizer = WithAdded({AddedTokenJson(265, "<a>", true),
                                    AddedTokenJson(266, "<a><b>", true)})
                             .Make();
  EXPECT_THAT(Encode(*tokenizer, "<a><b><a>"), ElementsAre(266, 265));
}

TEST(TokenizerTest, SpecialAsTextSparesTokensThatAreNotSpecial) {
  const auto tokenizer = WithAdded({AddedTokenJson(265, "<s>", true),
                                    AddedTokenJson(266, "<t>", false)})
                             .Make();
  EXPECT_THAT(Encode(*tokenizer, "<s><t>"), ElementsAre(265, 266));
  EXPECT_THAT(Encode(*tokenizer, "<s><t>", {.special_as_text = true}),
              ElementsAre('<', 's', '>', 266));
}

TEST(TokenizerTest, StripFlagsTakeAllWhiteSpace) {
  const auto tokenizer =
      WithAdded({AddedTokenJson(265, "<l>", true, R"(, "lstrip": true)"),
                 AddedTokenJson(266, "<r>", true, R"(, "rstrip": true)")})
          .Make();
  EXPECT_THAT(Encode(*tokenizer, "a \n\u00A0<l> a"),
              ElementsAre('a', 265, ' ', 'a'));
  EXPECT_THAT(Encode(*tokenizer, "a <r>\n\u3000 a"),
              ElementsAre('a', ' ', 266, 'a'));
  EXPECT_THAT(Encode(*tokenizer, "<r> <l>"), ElementsAre(266, 265));
}

TEST(TokenizerTest, SingleWordNeedsNoWordCharacterBesideIt) {
  const auto tokenizer =
      WithAdded({AddedTokenJson(265, "foo", false, R"(, "single_word": true)")})
          .Make();
  EXPECT_THAT(Encode(*tokenizer, "foo-foo"), ElementsAre(265, '-', 265));
  EXPECT_THAT(Encode(*tokenizer, "foox"), ElementsAre('f', 'o', 'o', 'x'));
  EXPECT_THAT(Encode(*tokenizer, "_foo"), ElementsAre('_', 'f', 'o', 'o'));
}

TEST(TokenizerTest, NormalizedTokensAreFoundInTheNormalizedText) {
  TokenizerJson json = WithAdded(
      {AddedTokenJson(265, "e\u0301", false, R"(, "normalized": true)")});
  json.normalizer = R"({"type": "NFC"})";
  const auto tokenizer = json.Make();
  EXPECT_THAT(Encode(*tokenizer, "a\u00E9"), ElementsAre('a', 265));
  EXPECT_EQ(tokenizer->TokenId("e\u0301"), 265);
}

TEST(TokenizerTest, NfcDoesNotSeeAcrossAnAddedToken) {
  TokenizerJson json = WithAdded({AddedTokenJson(265, "<s>", true)});
  json.normalizer = R"({"type": "NFC"})";
  EXPECT_THAT(Encode(*json.Make(), "<s>\u0338"), ElementsAre(265, 0xCC, 0xB8));
}

TEST(TokenizerTest, AddedTokensGetIdsBehindTheVocabulary) {
  const auto tokenizer = WithAdded({AddedTokenJson(265, "<s>", true),
                                    AddedTokenJson(7, "hello", false),
                                    AddedTokenJson(266, "<t>", true)})
                             .Make();
  EXPECT_EQ(tokenizer->TokenId("<s>"), 265);
  EXPECT_EQ(tokenizer->TokenId("hello"), 259);  // an entry keeps its id
  EXPECT_EQ(tokenizer->TokenId("<t>"), 266);
  EXPECT_EQ(tokenizer->TokenId("nobody"), std::nullopt);
  EXPECT_EQ(tokenizer->vocab_size(), 267);
  EXPECT_TRUE(tokenizer->IsSpecial(265));
  EXPECT_FALSE(tokenizer->IsSpecial(259));
  EXPECT_FALSE(tokenizer->IsSpecial(-1));
}

TEST(TokenizerTest, DecodeDropsSkippedSpecialsAndUnknownIds) {
  const auto tokenizer = WithAdded({AddedTokenJson(265, "<s>", true),
                                    AddedTokenJson(266, "<t>", false)})
                             .Make();
  const std::vector<Token> ids = {265, 259, -1, 266, 12345};
  EXPECT_EQ(tokenizer->Decode(ids, false), "<s>hello<t>");
  EXPECT_EQ(tokenizer->Decode(ids, true), "hello<t>");
}

TEST(TokenizerTest, ACodePointContinuesAfterASkippedSpecialToken) {
  const auto tokenizer = WithAdded({AddedTokenJson(265, "<s>", true)}).Make();
  const std::vector<Token> ids = {0xC3, 265, 0xA9};
  EXPECT_EQ(tokenizer->Decode(ids, true), "é");
  EXPECT_EQ(tokenizer->Decode(ids, false), "\uFFFD<s>\uFFFD");
}

TEST(TokenizerTest, TokenBytesAreRawAndSpecialTokensTheirText) {
  const auto byte_level = WithAdded({AddedTokenJson(265, "<s>", true)}).Make();
  EXPECT_EQ(byte_level->TokenBytes(0xC3), "\xC3");
  EXPECT_EQ(byte_level->TokenBytes(260), " hello");
  EXPECT_EQ(byte_level->TokenBytes(265), "<s>");
  EXPECT_EQ(byte_level->TokenBytes(9999), "");
  const auto pieces = SentencePieceJson().Make();
  EXPECT_EQ(pieces->TokenBytes(3 + 0xC3), "\xC3");
  EXPECT_EQ(pieces->TokenBytes(kSpaceA), " a");
  EXPECT_EQ(pieces->TokenBytes(1), "<s>");
}

TEST(TokenizerTest, BosInASequenceOfPostProcessors) {
  TokenizerJson json = WithAdded({AddedTokenJson(265, "<s>", true)});
  json.post_processor = R"({"type": "Sequence", "processors": [
      {"type": "ByteLevel"}, {"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "<s>", "type_id": 0}},
      {"Sequence": {"id": "A", "type_id": 0}}], "special_tokens":
      {"<s>": {"id": "<s>", "ids": [265], "tokens": ["<s>"]}}}]})";
  EXPECT_THAT(Encode(*json.Make(), "a"), ElementsAre(265, 'a'));
}

TEST(TokenizerTest, BertsPairGoesAroundTheText) {
  TokenizerJson json = WithAdded(
      {AddedTokenJson(265, "<s>", true), AddedTokenJson(266, "</s>", true)});
  json.post_processor = R"({"type": "RobertaProcessing",
      "sep": ["</s>", 266], "cls": ["<s>", 265]})";
  EXPECT_THAT(Encode(*json.Make(), "a"), ElementsAre(265, 'a', 266));
}

TEST(TokenizerTest, RefusesABrokenFileNamingTheField) {
  const auto expect = [](const std::string& json, const char* message,
                         absl::StatusCode code) {
    const auto tokenizer = Tokenizer::FromJson(json);
    EXPECT_EQ(tokenizer.status().code(), code) << tokenizer.status();
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(message));
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  expect("", "no valid JSON", kInvalid);
  expect("[]", "a list", kInvalid);
  expect("{}", "\"model\" is missing", kInvalid);
  TokenizerJson json = ByteLevelJson();
  json.added_tokens = "{}";
  expect(json.Text(), "\"added_tokens\" is an object", kInvalid);
  json.added_tokens = R"([{"id": 3}])";
  expect(json.Text(), "added_tokens[0] field \"content\" is missing", kInvalid);
  json.added_tokens = R"([{"id": -3, "content": "x"}])";
  expect(json.Text(), "added_tokens[0] field \"id\" is -3", kInvalid);
  json = ByteLevelJson();
  json.post_processor = R"({"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "<s>"}}], "special_tokens": {}})";
  expect(json.Text(), "special_tokens.<s>.ids", kInvalid);
  json.post_processor = R"({"type": "TemplateProcessing", "single": []})";
  expect(json.Text(), "the sequence A 0 times", kInvalid);
  json.post_processor = R"({"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
      "special_tokens": {"<s>": {"ids": [99999]}}})";
  expect(json.Text(), "is 99999", kInvalid);
  json.post_processor = R"({"type": "Magic"})";
  expect(json.Text(), "post_processor has the unsupported type \"Magic\"",
         absl::StatusCode::kUnimplemented);
}

TEST(TokenizerTest, AnAddedIdThatIsTakenIsRefused) {
  TokenizerJson json;
  json.model = R"({"vocab": {"a": 1}, "merges": []})";
  json.added_tokens = "[" + AddedTokenJson(1, "<s>", true) + "]";
  const auto tokenizer = Tokenizer::FromJson(json.Text());
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerTest, EveryTruncationOfAFileIsAnError) {
  const std::string text = SentencePieceJson().Text();
  for (size_t size = 0; size < text.size(); size += 7) {
    EXPECT_FALSE(Tokenizer::FromJson(text.substr(0, size)).ok()) << size;
  }
}

TEST(TokenizerTest, LoadNamesTheFile) {
  PosixFileSystem fs;
  const std::string dir = absl::StrCat(::testing::TempDir(), "/tokenizer_load");
  std::filesystem::remove_all(dir);
  ASSERT_TRUE(fs.CreateDirectories(dir).ok());
  EXPECT_EQ(Tokenizer::Load(fs, dir).status().code(),
            absl::StatusCode::kNotFound);
  const std::string path = JoinPath(dir, "tokenizer.json");
  ASSERT_TRUE(WriteFileDurably(fs, path, "{}").ok());
  const auto broken = Tokenizer::Load(fs, dir);
  EXPECT_THAT(std::string(broken.status().message()),
              HasSubstr("tokenizer.json: field \"model\""));
  ASSERT_TRUE(WriteFileDurably(fs, path, ByteLevelJson().Text()).ok());
  EXPECT_TRUE(Tokenizer::Load(fs, dir).ok());
}

TEST(IncrementalDecoderTest, ACopyGoesItsOwnWay) {
  const auto tokenizer = ByteLevelJson().Make();
  IncrementalDecoder one(*tokenizer, false);
  EXPECT_EQ(one.Append(0xC3), "");
  IncrementalDecoder other = one;
  EXPECT_EQ(one.Append(0xA9), "é");
  EXPECT_EQ(other.Append(0xA8), "è");
}

TEST(IncrementalDecoderTest, InTheMiddleOfATextTheSpaceIsKept) {
  const auto tokenizer = SentencePieceJson().Make();
  IncrementalDecoder at_start(*tokenizer, true);
  IncrementalDecoder in_text(*tokenizer, true, /*at_start_of_text=*/false);
  EXPECT_EQ(at_start.Append(kSpaceA), "a");
  EXPECT_EQ(in_text.Append(kSpaceA), " a");
}

// Scalar values of all lengths, with many spaces and letters.
std::string RandomText(std::mt19937& random) {
  std::string text;
  const size_t size = random() % 60;
  for (size_t i = 0; i < size; ++i) {
    constexpr char32_t kLimits[] = {0x80, 0x80, 0x100, 0x800, 0x3000, 0x110000};
    const char32_t limit = kLimits[random() % std::size(kLimits)];
    const auto c = static_cast<char32_t>(random() % limit);
    if (random() % 4 == 0) text += random() % 2 == 0 ? " " : "hello";
    if (c < 0xD800 || c > 0xDFFF) AppendUtf8(c, &text);
  }
  return text;
}

TEST(TokenizerPropertyTest, ByteLevelGivesEveryTextBack) {
  std::mt19937 random(1);
  const auto tokenizer = WithAdded({AddedTokenJson(265, "<s>", true)}).Make();
  for (int i = 0; i < 2000; ++i) {
    const std::string text = RandomText(random);
    ASSERT_EQ(tokenizer->Decode(Encode(*tokenizer, text), false), text);
  }
}

TEST(TokenizerPropertyTest, SentencePieceGivesATextBackWithoutItsSpace) {
  std::mt19937 random(2);
  const auto tokenizer = SentencePieceJson().Make();
  for (int i = 0; i < 2000; ++i) {
    const std::string text = RandomText(random);
    if (text.find("\u2581") != std::string::npos) continue;
    ASSERT_EQ(tokenizer->Decode(Encode(*tokenizer, text), true), text);
  }
}

// Any ids for byte-level; what Encode gives for byte fallback, whose runs are
// then valid.
TEST(TokenizerPropertyTest, AStreamGivesTheSameTextInWholeCodePoints) {
  std::mt19937 random(3);
  const auto byte_level = WithAdded({AddedTokenJson(265, "<s>", true)}).Make();
  const auto pieces = SentencePieceJson().Make();
  for (int i = 0; i < 3000; ++i) {
    const Tokenizer& tokenizer = i % 2 == 0 ? *byte_level : *pieces;
    const bool skip = random() % 2 == 0;
    std::vector<Token> ids = Encode(tokenizer, RandomText(random));
    if (i % 4 == 0) {
      for (Token& id : ids) id = static_cast<Token>(random() % 270);
    }
    IncrementalDecoder decoder(tokenizer, skip);
    std::string text;
    for (const Token id : ids) {
      const std::string part = decoder.Append(id);
      ASSERT_TRUE(IsValidUtf8(part));
      text += part;
    }
    text += decoder.Finish();
    ASSERT_EQ(text, tokenizer.Decode(ids, skip));
  }
}

TEST(TokenizerPropertyTest, TokenBytesTogetherAreTheText) {
  std::mt19937 random(4);
  const auto tokenizer = ByteLevelJson().Make();
  for (int i = 0; i < 500; ++i) {
    const std::string text = RandomText(random);
    std::string bytes;
    for (const Token id : Encode(*tokenizer, text)) {
      bytes += tokenizer->TokenBytes(id);
    }
    ASSERT_EQ(bytes, text);
  }
}

}  // namespace
}  // namespace lorikeet
