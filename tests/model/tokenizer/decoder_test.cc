#include "model/tokenizer/decoder.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kLlama[] = R"({"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";
constexpr char kByteLevel[] = R"({"type": "ByteLevel"})";
constexpr char kMetaspace[] =
    R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"})";

Decoder Make(absl::string_view json) {
  auto decoder = Decoder::FromJson(*Json::Parse(json));
  EXPECT_TRUE(decoder.ok()) << decoder.status();
  return decoder.ok() ? *std::move(decoder) : Decoder();
}

std::string Decode(absl::string_view json,
                   const std::vector<std::string>& tokens) {
  const Decoder decoder = Make(json);
  Decoder::State state = decoder.Start({});
  std::string out;
  for (const std::string& token : tokens) decoder.Append(token, &state, &out);
  decoder.Finish(&state, &out);
  return out;
}

// Returns what comes out after each token, and at the end.
std::vector<std::string> Stream(absl::string_view json,
                                const std::vector<std::string>& tokens,
                                bool at_start_of_text = true) {
  const Decoder decoder = Make(json);
  Decoder::State state =
      decoder.Start({.streaming = true, .at_start_of_text = at_start_of_text});
  std::vector<std::string> parts;
  for (const std::string& token : tokens) {
    decoder.Append(token, &state, &parts.emplace_back());
  }
  decoder.Finish(&state, &parts.emplace_back());
  return parts;
}

TEST(DecoderTest, NullPutsSpacesBetweenTokens) {
  EXPECT_EQ(Decode("null", {"a", "b", "c"}), "a b c");
}

TEST(DecoderTest, ByteLevelJoinsBytesOfManyTokens) {
  EXPECT_EQ(Decode(kByteLevel, {"ĠÃ", "©", "a"}), " éa");
  EXPECT_EQ(Decode(kByteLevel, {"ð", "Ł", "ĺ"}), "\uFFFD");
}

TEST(DecoderTest, ByteLevelStreamHoldsBackHalfACodePoint) {
  EXPECT_THAT(Stream(kByteLevel, {"aÃ", "©", "b"}),
              ElementsAre("a", "é", "b", ""));
  EXPECT_THAT(Stream(kByteLevel, {"Ã", "b"}), ElementsAre("", "\uFFFDb", ""));
  EXPECT_THAT(Stream(kByteLevel, {"Ã"}), ElementsAre("", "\uFFFD"));
}

TEST(DecoderTest, ByteLevelStreamGivesOutARealReplacementCharacter) {
  EXPECT_THAT(Stream(kByteLevel, {"ï¿½"}), ElementsAre("\uFFFD", ""));
}

TEST(DecoderTest, OneSpaceAtTheStartIsStripped) {
  EXPECT_EQ(Decode(kLlama, {"▁Hello", "▁world"}), "Hello world");
  EXPECT_EQ(Decode(kLlama, {"▁", "▁x"}), " x");
  EXPECT_EQ(Decode(kLlama, {"<s>", "▁x"}), "<s> x");
}

TEST(DecoderTest, AStreamStripsOnceOrNotAtAll) {
  EXPECT_THAT(Stream(kLlama, {"▁", "▁x", "▁y"}),
              ElementsAre("", " x", " y", ""));
  EXPECT_THAT(Stream(kLlama, {"▁x", "▁y"}, /*at_start_of_text=*/false),
              ElementsAre(" x", " y", ""));
}

TEST(DecoderTest, EveryByteOfAnInvalidRunIsReplaced) {
  EXPECT_EQ(Decode(kLlama, {"<0xE4>", "<0xBD>", "<0xA0>"}), "你");
  EXPECT_EQ(Decode(kLlama, {"<0xE4>", "<0xBD>", "<0xA0>", "<0xFF>"}),
            "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Decode(kLlama, {"<0xE4>", "a", "<0xBD>"}), "\uFFFDa\uFFFD");
}

TEST(DecoderTest, AStreamGivesOutWholeCodePointsOfARun) {
  EXPECT_THAT(Stream(kLlama, {"<0xC3>", "<0xA9>", "<0xC3>", "a"}),
              ElementsAre("", "é", "", "\uFFFDa", ""));
  EXPECT_THAT(Stream(kLlama, {"<0xFF>", "<0xC3>", "<0xA9>", "a"}),
              ElementsAre("\uFFFD", "\uFFFD", "\uFFFD", "a", ""));
  EXPECT_THAT(Stream(kLlama, {"<0xE4>", "<0xBD>"}),
              ElementsAre("", "", "\uFFFD\uFFFD"));
}

TEST(DecoderTest, OnlyTheExactFormIsAByteToken) {
  EXPECT_EQ(Decode(kLlama, {"<0x4>", "<0xGG>", "<0x41", "<0x41>"}),
            "<0x4><0xGG><0x41A");
}

TEST(DecoderTest, MetaspaceHasNoSpaceInTheFirstToken) {
  EXPECT_EQ(Decode(kMetaspace, {"▁a", "▁b"}), "a b");
  EXPECT_EQ(Decode(R"({"type": "Metaspace", "replacement": "▁",
                       "prepend_scheme": "never"})",
                   {"▁a", "▁b"}),
            " a b");
  EXPECT_THAT(Stream(kMetaspace, {"▁a", "▁b"}, /*at_start_of_text=*/false),
              ElementsAre(" a", " b", ""));
}

TEST(DecoderTest, StripAtTheEndWaitsForTheEnd) {
  const char* json = R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
      {"type": "Strip", "content": "_", "start": 0, "stop": 1}]})";
  EXPECT_THAT(Stream(json, {"a_", "b__"}), ElementsAre("a", "_b_", ""));
  EXPECT_EQ(Decode(json, {"a_", "b__"}), "a_b_");
}

TEST(DecoderTest, StripBeforeFuseStripsEachToken) {
  EXPECT_EQ(Decode(R"({"type": "Strip", "content": "_", "start": 1,
                       "stop": 1})",
                   {"__a_", "_b"}),
            "_ab");
}

TEST(DecoderTest, ReplaceBehindFuseFindsMatchesAcrossTokens) {
  const char* json = R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
      {"type": "Replace", "pattern": {"String": "ab"}, "content": "X"}]})";
  EXPECT_THAT(Stream(json, {"a", "b", "a", "c", "a"}),
              ElementsAre("", "X", "", "ac", "", "a"));
}

TEST(DecoderTest, TokenBytesAreRaw) {
  EXPECT_EQ(Make(kByteLevel).TokenBytes("Ã"), "\xC3");
  EXPECT_EQ(Make(kLlama).TokenBytes("<0xC3>"), "\xC3");
  EXPECT_EQ(Make(kLlama).TokenBytes("▁a"), " a");
  EXPECT_EQ(Make(kMetaspace).TokenBytes("▁a"), " a");
}

TEST(DecoderTest, RefusesByNameAndOrder) {
  const std::pair<const char*, const char*> unimplemented[] = {
      {R"({"type": "WordPiece"})", "\"WordPiece\""},
      {R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
           {"type": "ByteFallback"}]})",
       "decoder.decoders[1]"},
      {R"({"type": "Replace", "pattern": {"Regex": "a"}, "content": ""})",
       "regular expression"}};
  for (const auto& [json, message] : unimplemented) {
    const auto decoder = Decoder::FromJson(*Json::Parse(json));
    EXPECT_EQ(decoder.status().code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(decoder.status().message()), HasSubstr(message));
  }
  for (const char* json :
       {"1", "{}", R"({"type": "Sequence"})", R"({"type": "Strip"})",
        R"({"type": "Strip", "content": "", "start": 1})",
        R"({"type": "Strip", "content": " ", "start": -1})",
        R"({"type": "Replace", "content": ""})"}) {
    EXPECT_EQ(Decoder::FromJson(*Json::Parse(json)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << json;
  }
}

}  // namespace
}  // namespace lorikeet
