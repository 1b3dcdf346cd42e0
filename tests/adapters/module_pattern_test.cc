#include "adapters/module_pattern.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace lorikeet {
namespace {

constexpr char kName[] = "model.layers.11.self_attn.q_proj";

// What Python's re.match("(.*\.)?(" + key + ")$", kName) says.
struct Case {
  const char* key;
  bool matches;
};

class PatternKeyTest : public ::testing::TestWithParam<Case> {};

TEST_P(PatternKeyTest, MatchesAsPythonDoes) {
  const auto table =
      PatternTable::Compile("rank_pattern", {{GetParam().key, 3}});
  ASSERT_TRUE(table.ok()) << table.status();
  const auto value = table->Find(kName);
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(value->has_value(), GetParam().matches) << GetParam().key;
}

INSTANTIATE_TEST_SUITE_P(
    Keys, PatternKeyTest,
    ::testing::Values(
        Case{"q_proj", true}, Case{"self_attn.q_proj", true},
        Case{"proj", false}, Case{"layers.11", false}, Case{"layers.0", false},
        Case{"_proj", false},
        // A dot is any character, also in a key without anything special.
        Case{"self.attn.q.proj", true}, Case{"elf_attn.q_proj", false},
        Case{kName, true}, Case{"^model.layers.11.self_attn.q_proj", true},
        Case{"^q_proj", false},
        Case{"x.model.layers.11.self_attn.q_proj", false},
        Case{R"(layers\.11\..*)", true}, Case{R"(layers\.1\..*)", false},
        Case{R"(layers\.(1|11)\.self_attn\.[qk]_proj)", true},
        Case{R"(layers\.\d+\.mlp\..*)", false}, Case{".*", true},
        Case{"[qk]_proj", true}, Case{"q_proj|v_proj", true},
        Case{"v_proj|k_proj", false}, Case{"(?:q|k)_proj", true},
        Case{"(?P<p>q)_proj", true}, Case{"(?i:Q)_proj", true},
        Case{"Q_proj", false}, Case{"q_proj$", true}, Case{"", false},
        Case{R"(layers\.(?!0\.)\d+\..*)", true},
        // Groups are counted after two of ours: \3 is the first of the key.
        Case{R"(layers\.(1)\3\..*)", true}));

TEST(PatternTableTest, TakesTheFirstKeyOfTheFile) {
  const auto table = PatternTable::Compile(
      "alpha_pattern", {{"v_proj", 1}, {".*q_proj", 2}, {"q_proj", 3}});
  ASSERT_TRUE(table.ok());
  EXPECT_EQ(**table->Find(kName), 2);
  EXPECT_EQ(**table->Find("model.layers.0.self_attn.v_proj"), 1);
  EXPECT_FALSE(table->Find("model.layers.0.mlp.up_proj")->has_value());
}

TEST(PatternTableTest, RefusesWhatPythonDoesNotRead) {
  for (const std::string key :
       {"(", "[", "*", "a)(b", "(?i)q_proj", "(*UCP)a", "(?R)", "(?1)", "a\\K",
        "\\Qa", "(?<n>a)", "a{,3}", "\\p{L}", "a\\", "(?|a|b)"}) {
    const auto table = PatternTable::Compile("rank_pattern", {{key, 3}});
    // ")(" makes two groups of ours: Python reads it, and so may we.
    if (key == "a)(b") continue;
    ASSERT_FALSE(table.ok()) << key;
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(table.status().message(), "rank_pattern"))
        << table.status();
  }
}

TEST(PatternTableTest, GivesUpOnPatternsThatExplode) {
  const auto table =
      PatternTable::Compile("rank_pattern", {{"((a|l|e|r|s)+)+x+y", 3}});
  ASSERT_TRUE(table.ok());
  const auto value = table->Find("model.layersalersalersalersalersaler.q_proj");
  // Either it is seen at once that there is no match, or the limit ends it.
  if (!value.ok()) {
    EXPECT_TRUE(absl::StrContains(value.status().message(), "rank_pattern"));
  } else {
    EXPECT_FALSE(value->has_value());
  }
}

TEST(PatternTableTest, LimitsTheNumberOfPatterns) {
  PatternTable::Entries literal, patterns;
  for (int i = 0; i < 300; ++i) {
    literal.emplace_back(absl::StrCat("model.layers.", i, ".mlp.up_proj"), 4);
    patterns.emplace_back(absl::StrCat("layers\\.", i, "\\..*"), 4);
  }
  EXPECT_TRUE(PatternTable::Compile("rank_pattern", literal).ok());
  EXPECT_FALSE(PatternTable::Compile("rank_pattern", patterns).ok());
}

TEST(CompilePythonRegexTest, AllowsFlagsAtTheStartOfAWholePattern) {
  const auto regex =
      CompilePythonRegex("target_modules", "(?i).*Q_PROJ", /*whole=*/true);
  ASSERT_TRUE(regex.ok()) << regex.status();
  EXPECT_TRUE(*regex->FullMatch(kName));
  EXPECT_FALSE(
      CompilePythonRegex("target_modules", "a(?i)", /*whole=*/true).ok());
}

}  // namespace
}  // namespace lorikeet
