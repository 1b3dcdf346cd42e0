#include "base/regex.h"

#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

using ::testing::HasSubstr;

Regex Compiled(absl::string_view pattern, const RegexOptions& options = {}) {
  return Regex::Compile(pattern, options).value();
}

TEST(RegexTest, NamesPatternAndOffsetOfAnError) {
  const absl::Status status = Regex::Compile("a(b").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("\"a(b\" at offset 3"));
}

TEST(RegexTest, FindsTheLeftmostMatchBehindAnOffset) {
  const Regex regex = Compiled("b+");
  const auto first = regex.Search("abba b").value();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->begin, 1u);
  EXPECT_EQ(first->end, 3u);
  const auto next = regex.Search("abba b", 3).value();
  ASSERT_TRUE(next.has_value());
  EXPECT_EQ(next->begin, 5u);
  EXPECT_FALSE(regex.Search("abba b", 6).value().has_value());
}

TEST(RegexTest, FullMatchTakesTheWholeSubject) {
  const Regex regex = Compiled(R"(.*\.(q|v)_proj)");
  EXPECT_TRUE(regex.FullMatch("model.layers.0.q_proj").value());
  EXPECT_FALSE(regex.FullMatch("model.layers.0.q_proj.x").value());
  // The longer alternative is found though the shorter one matches first.
  EXPECT_TRUE(Compiled("a|ab").FullMatch("ab").value());
  // As in Python, no end of line may be left over.
  EXPECT_FALSE(Compiled("a").FullMatch("a\n").value());
}

TEST(RegexTest, PrefixMatchIsAnchored) {
  const Regex regex = Compiled("b");
  EXPECT_TRUE(regex.PrefixMatch("ba").value());
  EXPECT_FALSE(regex.PrefixMatch("ab").value());
}

TEST(RegexTest, ReturnsANamedGroup) {
  const Regex regex = Compiled("(?P<n>[0-9]+)?x");
  EXPECT_EQ(*regex.NamedGroupOfPrefixMatch("12x", "n").value(), "12");
  EXPECT_FALSE(regex.NamedGroupOfPrefixMatch("x", "n").value().has_value());
  EXPECT_FALSE(regex.NamedGroupOfPrefixMatch("12x", "m").value().has_value());
  EXPECT_FALSE(regex.NamedGroupOfPrefixMatch("y", "n").value().has_value());
}

TEST(RegexTest, ClassesFollowUnicodeOnRequest) {
  RegexOptions unicode;
  unicode.unicode_properties = true;
  EXPECT_FALSE(Compiled("\\w").FullMatch("\xc3\xbc").value());
  EXPECT_TRUE(Compiled("\\w", unicode).FullMatch("\xc3\xbc").value());
  EXPECT_TRUE(Compiled("\\p{L}").FullMatch("\xc3\xbc").value());
  EXPECT_TRUE(Compiled(".").FullMatch("\xf0\x9f\xa6\x9c").value());
}

TEST(RegexTest, AHostilePatternEndsAtTheLimit) {
  RegexOptions options;
  options.match_limit = 10'000;
  const Regex regex = Compiled("(a+)+$", options);
  EXPECT_EQ(regex.Search(std::string(40, 'a') + "b").status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(RegexTest, MayBeMoved) {
  Regex from = Compiled("a");
  Regex to = std::move(from);
  EXPECT_TRUE(to.FullMatch("a").value());
  EXPECT_EQ(to.pattern(), "a");
}

}  // namespace
}  // namespace lorikeet
