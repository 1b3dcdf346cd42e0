#include "model/tokenizer/oniguruma_pattern.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/tokenizer/text_pattern.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Returns what `pattern` matches in `text`.
std::vector<std::string> Matches(absl::string_view pattern,
                                 absl::string_view text) {
  std::vector<std::string> out;
  const auto compiled = TextPattern::FromRegex(pattern);
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  if (!compiled.ok()) return out;
  const absl::Status status =
      compiled->ForEachMatch(text, [&](size_t begin, size_t end) {
        out.emplace_back(text.substr(begin, end - begin));
      });
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

TEST(OnigurumaPatternTest, SpaceIsTheWhiteSpacePropertyWithoutU180E) {
  EXPECT_THAT(Matches(R"(\s)", "\u180E\u200B\uFEFF\x1C"), IsEmpty());
  EXPECT_THAT(Matches(R"(\s+)",
                      "a\u00A0\u3000\x0B"
                      "b"),
              ElementsAre("\u00A0\u3000\x0B"));
  EXPECT_THAT(Matches(R"([\s])", "\u180E\u0085"), ElementsAre("\u0085"));
  EXPECT_THAT(Matches(R"(\S)", "\u180E "), ElementsAre("\u180E"));
  EXPECT_THAT(Matches(R"([^\S])", "\u180E "), ElementsAre(" "));
  EXPECT_THAT(Matches(R"([\s\S])", "\u180E "), ElementsAre("\u180E", " "));
}

TEST(OnigurumaPatternTest, LettersAndNumbersOfUnicode16AreKnown) {
  // U+1C89 and U+2EBF0 are letters since 16 and 15.1; U+10D40 is a digit.
  EXPECT_THAT(Matches(R"(\p{L}+)", "\u1C89\U0002EBF0 x"),
              ElementsAre("\u1C89\U0002EBF0", "x"));
  EXPECT_THAT(Matches(R"([^\s\p{L}\p{N}])", "\u1C89!\U00010D40"),
              ElementsAre("!"));
  EXPECT_THAT(Matches(R"(\P{L})", "\u1C89!"), ElementsAre("!"));
  EXPECT_THAT(Matches(R"(\p{^Letter})", "\u1C89!"), ElementsAre("!"));
  EXPECT_THAT(Matches(R"(\p{Lu})", "\u1C89\u1C8A"), ElementsAre("\u1C89"));
  EXPECT_THAT(Matches(R"(\d)",
                      "\U00010D40"
                      "7"),
              ElementsAre("\U00010D40", "7"));
}

TEST(OnigurumaPatternTest, WordAndHexFollowOniguruma) {
  EXPECT_THAT(Matches(R"(\w+)", "a\u0301_\u00B2\u2075"),
              ElementsAre("a\u0301_\u00B2"));
  EXPECT_THAT(Matches(R"(\W)", "a\u00B2\u2075"), ElementsAre("\u2075"));
  EXPECT_THAT(Matches(R"(\h+)", "xBEef \t"), ElementsAre("BEef"));
  EXPECT_THAT(Matches(R"([[:punct:]]+)", "a+!"), ElementsAre("+!"));
  EXPECT_THAT(Matches(R"(\p{Punct}+)", "a+!"), ElementsAre("!"));
  EXPECT_THAT(Matches(R"(\p{Alpha}+)", "a\u036D\u1C89-"),
              ElementsAre("a\u036D\u1C89"));
}

TEST(OnigurumaPatternTest, AnchorsMatchAtLinesAndDotAllIsM) {
  EXPECT_THAT(Matches(R"(^.)", "ab\ncd"), ElementsAre("a", "c"));
  EXPECT_THAT(Matches(R"((?m:b.c))", "ab\ncd"), ElementsAre("b\nc"));
  EXPECT_THAT(Matches(R"(b.c)", "ab\ncd"), IsEmpty());
}

TEST(OnigurumaPatternTest, CaseFoldingFollowsUnicode) {
  EXPECT_THAT(Matches(R"((?i:'s|'re))", "'S'\u017F'RE"),
              ElementsAre("'S", "'\u017F", "'RE"));
}

TEST(OnigurumaPatternTest, EmptyMatchBehindAMatchIsSkipped) {
  EXPECT_THAT(Matches(R"(a*)", "aab"), ElementsAre("aa", ""));
}

TEST(OnigurumaPatternTest, RefusesWhatPcre2HasNot) {
  for (const char* pattern : {"[a&&b]", "[a[b]]", R"([a\W])", "[[:graph:]]"}) {
    const auto translated = TranslateOnigurumaPattern(pattern);
    EXPECT_EQ(translated.status().code(), absl::StatusCode::kUnimplemented)
        << pattern;
  }
}

TEST(OnigurumaPatternTest, ABrokenPatternIsAnErrorWithItsPlace) {
  for (const char* pattern : {"(", "[a", "\\p", "\\p{", "\\", "a{2,1}"}) {
    const auto compiled = TextPattern::FromRegex(pattern);
    EXPECT_EQ(compiled.status().code(), absl::StatusCode::kInvalidArgument)
        << pattern;
    EXPECT_THAT(std::string(compiled.status().message()),
                HasSubstr("at offset"));
  }
}

}  // namespace
}  // namespace lorikeet
