#include "adapters/alias.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/reason.h"

namespace lorikeet {
namespace {

using ::testing::HasSubstr;

constexpr int kKeys = 20000;

Alias Split(uint32_t stable, uint32_t candidate) {
  Alias alias;
  alias.tenant = "default";
  alias.name = "task";
  alias.targets = {{"a", 1, stable}, {"a", 2, candidate}};
  return alias;
}

std::string Key(int i) { return absl::StrCat("user-", i); }

void ExpectRefused(const Alias& alias, const std::string& reason,
                   const std::string& message) {
  const absl::Status status = CheckAlias(alias);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), reason);
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

// ---- routing ----------------------------------------------------------------

TEST(AliasTest, SplitsKeysByWeight) {
  const Alias alias = Split(90, 10);
  int candidates = 0;
  for (int i = 0; i < kKeys; ++i)
    candidates += ChooseTarget(alias, Key(i)) == 1;
  // Binomial, five standard deviations of sqrt(n p q) = 42.
  EXPECT_NEAR(candidates, kKeys / 10, 215);
}

TEST(AliasTest, TheSameKeyAlwaysGetsTheSameTarget) {
  const Alias alias = Split(1, 1);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(ChooseTarget(alias, Key(i)), ChooseTarget(alias, Key(i)));
  }
}

TEST(AliasTest, RaisingTheLastWeightMovesNobodyAwayFromIt) {
  const Alias before = Split(95, 5), after = Split(80, 20);
  int moved = 0;
  for (int i = 0; i < kKeys; ++i) {
    const size_t old_target = ChooseTarget(before, Key(i));
    const size_t new_target = ChooseTarget(after, Key(i));
    EXPECT_GE(new_target, old_target);
    moved += old_target != new_target;
  }
  EXPECT_NEAR(moved, kKeys * 15 / 100, 255);
}

TEST(AliasTest, AliasesSplitTheSameKeysInOtherPlaces) {
  const Alias one = Split(50, 50);
  Alias two = one;
  two.name = "other";
  int equal = 0;
  for (int i = 0; i < kKeys; ++i) {
    equal += ChooseTarget(one, Key(i)) == ChooseTarget(two, Key(i));
  }
  EXPECT_NEAR(equal, kKeys / 2, 354);
}

TEST(AliasTest, AWeightOfZeroGetsNothing) {
  const Alias none = Split(100, 0), all = Split(0, 1);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(ChooseTarget(none, Key(i)), 0u);
    EXPECT_EQ(ChooseTarget(all, Key(i)), 1u);
  }
}

TEST(AliasTest, WithoutAKeyTheStableTargetAnswersAlone) {
  Alias alias = Split(1, 99);
  alias.shadow = AliasShadow{"b", 1, 1};
  EXPECT_EQ(ChooseTarget(alias, ""), 0u);
  EXPECT_FALSE(IsShadowed(alias, ""));
  EXPECT_TRUE(IsShadowed(alias, "x"));
}

TEST(AliasTest, ShadowsAShareWhateverTheTarget) {
  Alias alias = Split(50, 50);
  alias.shadow = AliasShadow{"b", 1, 0.2};
  int shadowed[2] = {0, 0};
  for (int i = 0; i < kKeys; ++i) {
    if (IsShadowed(alias, Key(i))) ++shadowed[ChooseTarget(alias, Key(i))];
  }
  EXPECT_NEAR(shadowed[0], kKeys / 10, 215);
  EXPECT_NEAR(shadowed[1], kKeys / 10, 215);
}

// ---- changes ----------------------------------------------------------------

TEST(AliasTest, PromotionGivesAllToOneAndRemembersTheOther) {
  Alias alias = Split(95, 5);
  alias.shadow = AliasShadow{"b", 1, 0.2};
  alias.rule = RollbackRule();
  const Alias promoted = Promoted(alias, {"a", 2, 5});
  EXPECT_EQ(promoted.DescribeTargets(), "a@2");
  ASSERT_TRUE(promoted.previous.has_value());
  EXPECT_EQ(promoted.previous->ToString(), "a@1");
  EXPECT_TRUE(promoted.rule.has_value());
}

TEST(AliasTest, TheCandidateIsTheOnlyOneOrTheShadow) {
  Alias alias = Split(95, 5);
  EXPECT_EQ(CandidateOf(alias)->ToString(), "a@2");
  alias.targets.push_back({"a", 3, 5});
  EXPECT_EQ(ReasonOf(CandidateOf(alias).status()), "ALIAS_NO_CANDIDATE");
  alias.targets.resize(1);
  EXPECT_EQ(ReasonOf(CandidateOf(alias).status()), "ALIAS_NO_CANDIDATE");
  alias.shadow = AliasShadow{"b", 7, 0.5};
  EXPECT_EQ(CandidateOf(alias)->ToString(), "b@7");
}

TEST(AliasTest, RollingBackDropsCandidatesFirstAndPromotionsThen) {
  Alias alias = Split(95, 5);
  alias.shadow = AliasShadow{"b", 1, 0.2};
  alias.previous = AliasTarget{"a", 9, 1};
  const auto once = RolledBack(alias);
  ASSERT_TRUE(once.ok());
  EXPECT_EQ(once->DescribeTargets(), "a@1");
  const auto twice = RolledBack(*once);
  ASSERT_TRUE(twice.ok());
  EXPECT_EQ(twice->DescribeTargets(), "a@9");
  const auto thrice = RolledBack(*twice);
  EXPECT_EQ(thrice.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(thrice.status()), "ALIAS_NO_PREVIOUS");
}

TEST(AliasTest, RemovesWhatIsGone) {
  Alias alias = Split(95, 5);
  alias.shadow = AliasShadow{"a", 2, 0.2};
  alias.previous = AliasTarget{"a", 2, 1};
  const auto is_second = [](const std::string&, uint32_t v) { return v == 2; };
  EXPECT_TRUE(RemoveTargets(is_second, &alias));
  EXPECT_EQ(alias.DescribeTargets(), "a@1");
  EXPECT_FALSE(alias.previous.has_value());
  EXPECT_FALSE(
      RemoveTargets([](const std::string&, uint32_t) { return true; }, &alias));
}

// ---- checks -----------------------------------------------------------------

TEST(AliasTest, RefusesSplitsThatMeanNothing) {
  ExpectRefused(Split(0, 0), "INVALID_SPLIT", "sum to 0");
  ExpectRefused(Split(1, kMaxAliasWeight + 1), "INVALID_SPLIT",
                "weight 1000001 of target a@2");
  Alias alias = Split(1, 1);
  alias.targets[1].version = 1;
  ExpectRefused(alias, "INVALID_SPLIT", "a@1 stands twice");
  alias.targets.clear();
  ExpectRefused(alias, "INVALID_SPLIT", "0 targets");
  for (uint32_t i = 0; i <= kMaxAliasTargets; ++i) {
    alias.targets.push_back({"a", i + 1, 1});
  }
  ExpectRefused(alias, "INVALID_SPLIT", "17 targets, expected 1 to 16");
  alias = Split(1, 1);
  for (const double share : {0.0, -1.0, 1.5, std::nan("")}) {
    alias.shadow = AliasShadow{"b", 1, share};
    ExpectRefused(alias, "INVALID_SPLIT", "not in (0, 1]");
  }
}

TEST(AliasTest, RefusesRulesThatMeanNothing) {
  Alias alias = Split(1, 1);
  const auto refuse = [&](const RollbackRule& rule,
                          const std::string& message) {
    alias.rule = rule;
    ExpectRefused(alias, "INVALID_RULE", message);
  };
  refuse(RollbackRule(), "neither");
  refuse({.max_error_rate = 1.5}, "max_error_rate 1.5");
  refuse({.max_error_rate = std::nan("")}, "max_error_rate");
  refuse({.max_latency = absl::ZeroDuration()}, "max_latency 0");
  refuse({.max_error_rate = 0.1, .window = absl::Milliseconds(1)}, "window");
  refuse({.max_error_rate = 0.1, .min_requests = 0}, "min_requests 0");
  alias.rule = RollbackRule{.max_error_rate = 0};
  EXPECT_TRUE(CheckAlias(alias).ok());
}

}  // namespace
}  // namespace lorikeet
