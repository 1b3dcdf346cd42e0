#include "model/tokenizer/pre_tokenizer.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> Cut(const std::string& json, absl::string_view text,
                             bool at_start = true) {
  std::vector<std::string> out;
  const auto pre_tokenizer = PreTokenizer::FromJson(*Json::Parse(json));
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  if (!pre_tokenizer.ok()) return out;
  PieceList list;
  list.pieces.push_back({text, at_start});
  EXPECT_TRUE(pre_tokenizer->Cut(&list).ok());
  for (const Piece& piece : list.pieces) out.emplace_back(piece.text);
  return out;
}

std::string Split(const std::string& pattern, const std::string& behavior,
                  const std::string& invert = "false") {
  return absl::StrCat(R"({"type": "Split", "pattern": )", pattern,
                      R"(, "behavior": ")", behavior, R"(", "invert": )",
                      invert, "}");
}

std::string Metaspace(const std::string& rest) {
  return absl::StrCat(R"({"type": "Metaspace", "replacement": "▁")", rest, "}");
}

constexpr char kByteLevel[] =
    R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})";

TEST(PreTokenizerTest, NullCutsNothing) {
  EXPECT_THAT(Cut("null", "a b"), ElementsAre("a b"));
}

TEST(PreTokenizerTest, ByteLevelAppliesGpt2sPattern) {
  EXPECT_THAT(Cut(kByteLevel, "Hello, it's  12\n"),
              ElementsAre("Hello", ",", " it", "'s", " ", " 12", "\n"));
}

TEST(PreTokenizerTest, ByteLevelMayPutASpaceInFront) {
  const char* json = R"({"type": "ByteLevel", "add_prefix_space": true})";
  EXPECT_THAT(Cut(json, "a b"), ElementsAre(" a", " b"));
  EXPECT_THAT(Cut(json, " a"), ElementsAre(" a"));
}

TEST(PreTokenizerTest, ByteLevelWithoutRegexCutsNothing) {
  const char* json =
      R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})";
  EXPECT_THAT(Cut(json, "a b"), ElementsAre("a b"));
}

TEST(PreTokenizerTest, ALookAheadSeesTheEndOfItsPiece) {
  const std::string json = absl::StrCat(
      R"({"type": "Sequence", "pretokenizers": [
          {"type": "Digits", "individual_digits": true}, )",
      kByteLevel, "]}");
  EXPECT_THAT(Cut(json, "a  1"), ElementsAre("a", "  ", "1"));
  EXPECT_THAT(Cut(kByteLevel, "a  1"), ElementsAre("a", " ", " 1"));
}

TEST(PreTokenizerTest, AStepBehindByteLevelSeesTheByteAlphabet) {
  const std::string json =
      absl::StrCat(R"({"type": "Sequence", "pretokenizers": [)", kByteLevel,
                   ",", Split(R"({"String": "Ġ"})", "Isolated"), "]}");
  EXPECT_THAT(Cut(json, "a é"), ElementsAre("a", "Ġ", "Ã©"));
}

TEST(PreTokenizerTest, DigitsAreAllNumbersOfUnicode) {
  EXPECT_THAT(
      Cut(R"({"type": "Digits", "individual_digits": true})", "a12²Ⅳ٣b"),
      ElementsAre("a", "1", "2", "²", "Ⅳ", "٣", "b"));
  EXPECT_THAT(
      Cut(R"({"type": "Digits", "individual_digits": false})", "a12²b3"),
      ElementsAre("a", "12²", "b", "3"));
}

TEST(PreTokenizerTest, SplitBehaviorsTreatMatchesInARow) {
  const std::string dash = R"({"String": "-"})";
  const absl::string_view text = "the-final--countdown";
  EXPECT_THAT(Cut(Split(dash, "Removed"), text),
              ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(Cut(Split(dash, "Isolated"), text),
              ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(Cut(Split(dash, "MergedWithPrevious"), text),
              ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(Cut(Split(dash, "MergedWithNext"), text),
              ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(Cut(Split(dash, "Contiguous"), text),
              ElementsAre("the", "-", "final", "--", "countdown"));
}

TEST(PreTokenizerTest, InvertSwapsMatchesAndTheRest) {
  EXPECT_THAT(Cut(Split(R"({"Regex": "\\d+"})", "Removed", "true"), "a12b3"),
              ElementsAre("12", "3"));
}

TEST(PreTokenizerTest, MetaspacePrefixFollowsItsScheme) {
  const std::string always = Metaspace(R"(, "prepend_scheme": "always")");
  const std::string first = Metaspace(R"(, "prepend_scheme": "first")");
  const std::string never = Metaspace(R"(, "prepend_scheme": "never")");
  EXPECT_THAT(Cut(always, "a b", false), ElementsAre("▁a", "▁b"));
  EXPECT_THAT(Cut(always, " a"), ElementsAre("▁a"));
  EXPECT_THAT(Cut(first, "a b", true), ElementsAre("▁a", "▁b"));
  EXPECT_THAT(Cut(first, "a b", false), ElementsAre("a", "▁b"));
  EXPECT_THAT(Cut(never, "a b"), ElementsAre("a", "▁b"));
}

TEST(PreTokenizerTest, MetaspaceMayKeepTheTextTogether) {
  EXPECT_THAT(Cut(Metaspace(R"(, "split": false)"), "a  b"),
              ElementsAre("▁a▁▁b"));
  EXPECT_THAT(Cut(Metaspace(""), "a  b"), ElementsAre("▁a", "▁", "▁b"));
}

TEST(PreTokenizerTest, MetaspaceKnowsTheOlderField) {
  EXPECT_THAT(Cut(Metaspace(R"(, "add_prefix_space": false)"), "a"),
              ElementsAre("a"));
  EXPECT_THAT(Cut(Metaspace(R"(, "add_prefix_space": true)"), "a"),
              ElementsAre("▁a"));
}

TEST(PreTokenizerTest, AnEmptyListStaysEmpty) {
  EXPECT_THAT(Cut(Split(R"({"Regex": "[\\s\\S]"})", "Removed"), "ab"),
              IsEmpty());
}

TEST(PreTokenizerTest, RefusesByNameAndPlace) {
  const auto unknown = PreTokenizer::FromJson(*Json::Parse(
      R"({"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}]})"));
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(unknown.status().message()),
              HasSubstr("pre_tokenizer.pretokenizers[0] has the unsupported "
                        "type \"Whitespace\""));
  for (const std::string& json :
       {std::string("[]"), std::string("{}"),
        std::string(R"({"type": "Sequence", "pretokenizers": {}})"),
        Split(R"({"String": "a"})", "Glued"), Split("3", "Isolated"),
        Split(R"({"String": "a"})", "Isolated", "7"),
        Metaspace(R"(, "prepend_scheme": "last")"),
        Metaspace(R"(, "prepend_scheme": "first", "add_prefix_space": false)"),
        std::string(R"({"type": "Metaspace", "replacement": "ab"})"),
        std::string(R"({"type": "ByteLevel", "use_regex": "yes"})")}) {
    EXPECT_EQ(PreTokenizer::FromJson(*Json::Parse(json)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << json;
  }
}

}  // namespace
}  // namespace lorikeet
