#include "model/tokenizer/normalizer.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet {
namespace {

using ::testing::HasSubstr;

std::string Normalize(absl::string_view json, absl::string_view text) {
  const auto normalizer = Normalizer::FromJson(*Json::Parse(json));
  EXPECT_TRUE(normalizer.ok()) << normalizer.status();
  if (!normalizer.ok()) return "";
  const auto result = normalizer->Normalize(text);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.value_or("");
}

TEST(NormalizerTest, NullChangesNothing) {
  EXPECT_EQ(Normalize("null", "a\u212B"), "a\u212B");
}

TEST(NormalizerTest, NfcComposesReordersAndDecomposesSingletons) {
  EXPECT_EQ(ToNfc("e\u0301"), "\u00E9");
  EXPECT_EQ(ToNfc("\u212B"), "\u00C5");
  EXPECT_EQ(ToNfc("\u0958"), "\u0915\u093C");
  EXPECT_EQ(ToNfc("a\u0301\u0323"), "\u1EA1\u0301");
  EXPECT_EQ(ToNfc("\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(ToNfc(">\u0338"), "\u226F");
}

TEST(NormalizerTest, NfcKeepsControlCharactersAndUnassigned) {
  constexpr char kText[] = "a\0\x01\x7F\u0085\U000E0FFF\uFFFE";
  const std::string text(kText, sizeof(kText) - 1);
  EXPECT_EQ(ToNfc(text), text);
}

TEST(NormalizerTest, NfcLeavesMarksNewerThanUnicode9WhereTheyStand) {
  // U+11938 of Unicode 13 is U+11935 U+11930 composed.
  EXPECT_EQ(ToNfc("\U00011935\U00011930"), "\U00011935\U00011930");
  // U+1E4EC of Unicode 15 has a lower class than U+0345.
  EXPECT_EQ(ToNfc("a\u0345\U0001E4EC"), "a\u0345\U0001E4EC");
}

TEST(NormalizerTest, NfcKeepsTheCodePointBeforeTheTrailingHangulLetters) {
  EXPECT_EQ(ToNfc("\uB194\u11A7"), "\uB194\u11A7");
  EXPECT_EQ(ToNfc("\uB18D\u11A7\u11A8"), "\uB18D\u11A7\u11A8");
}

TEST(NormalizerTest, NfcOfALongRunOfMarksDoesNotTakeQuadraticTime) {
  std::string text;
  std::string sorted_low;
  std::string sorted_high;
  for (int i = 0; i < 200'000; ++i) {
    text += "\u0345\u0334";  // classes 240 and 1
    sorted_low += "\u0334";
    sorted_high += "\u0345";
  }
  EXPECT_EQ(ToNfc("x" + text), "x" + sorted_low + sorted_high);
}

TEST(NormalizerTest, PrependLeavesAnEmptyTextEmpty) {
  const char* json = R"({"type": "Prepend", "prepend": "_"})";
  EXPECT_EQ(Normalize(json, "a"), "_a");
  EXPECT_EQ(Normalize(json, "_a"), "__a");
  EXPECT_EQ(Normalize(json, ""), "");
}

TEST(NormalizerTest, ReplacesStringsAndRegularExpressions) {
  EXPECT_EQ(Normalize(R"({"type": "Replace", "pattern": {"String": "aa"},
                          "content": "a"})",
                      "aaaaab"),
            "aaab");
  EXPECT_EQ(Normalize(R"({"type": "Replace", "pattern": {"Regex": "\\s+"},
                          "content": ""})",
                      "a \u00A0 b"),
            "ab");
}

TEST(NormalizerTest, SequenceGoesInOrder) {
  EXPECT_EQ(Normalize(R"({"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": " "},
                {"type": "Replace", "pattern": {"String": " "},
                 "content": "_"}]})",
                      "a b"),
            "_a_b");
}

TEST(NormalizerTest, RefusesByNameAndPlace) {
  const auto unknown = Normalizer::FromJson(*Json::Parse(
      R"({"type": "Sequence", "normalizers": [{"type": "Lowercase"}]})"));
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(unknown.status().message()),
              HasSubstr("normalizer.normalizers[0] has the unsupported type "
                        "\"Lowercase\""));
  for (const char* json :
       {"3", "{}", R"({"type": 3})", R"({"type": "Sequence"})",
        R"({"type": "Prepend"})", R"({"type": "Replace", "content": ""})",
        R"({"type": "Replace", "pattern": {"Glob": "*"}, "content": ""})",
        R"({"type": "Replace", "pattern": {"Regex": "("}, "content": ""})"}) {
    EXPECT_EQ(Normalizer::FromJson(*Json::Parse(json)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << json;
  }
}

TEST(NormalizerTest, RefusesReplacementsThatExplode) {
  std::string steps;
  for (int i = 0; i < 40; ++i) {
    steps += i > 0 ? "," : "";
    steps +=
        R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})";
  }
  const auto normalizer = Normalizer::FromJson(
      *Json::Parse(R"({"type": "Sequence", "normalizers": [)" + steps + "]}"));
  EXPECT_EQ(normalizer.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lorikeet
