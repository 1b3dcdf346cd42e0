#include "server/engine/stop_matcher.h"

#include <string>
#include <vector>

#include "base/random.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

std::string Feed(StopMatcher* matcher, std::vector<std::string> pieces) {
  std::string out;
  for (const std::string& piece : pieces) {
    if (matcher->Append(piece, &out)) return out;
  }
  matcher->Finish(&out);
  return out;
}

TEST(StopMatcherTest, CutsAtAStopString) {
  StopMatcher m({"END"}, false);
  EXPECT_EQ(Feed(&m, {"abcENDdef"}), "abc");
  EXPECT_EQ(m.matched(), "END");
}

TEST(StopMatcherTest, KeepsTheMatchIfAsked) {
  StopMatcher m({"END"}, true);
  EXPECT_EQ(Feed(&m, {"abcENDdef"}), "abcEND");
}

TEST(StopMatcherTest, MatchesAcrossPieces) {
  StopMatcher m({"END"}, false);
  std::string out;
  EXPECT_FALSE(m.Append("abE", &out));
  EXPECT_EQ(out, "ab");
  EXPECT_FALSE(m.Append("N", &out));
  EXPECT_EQ(out, "ab");
  EXPECT_TRUE(m.Append("Dx", &out));
  EXPECT_EQ(out, "ab");
}

TEST(StopMatcherTest, GivesOutWhatTurnsOutToBeNoMatch) {
  StopMatcher m({"ENDE"}, false);
  EXPECT_EQ(Feed(&m, {"E", "N", "D", "!", "EN"}), "END!EN");
  EXPECT_FALSE(m.matched().has_value());
}

TEST(StopMatcherTest, FindsAMatchInsideAFalseStart) {
  StopMatcher m({"aab"}, false);
  EXPECT_EQ(Feed(&m, {"a", "a", "a", "b"}), "a");
}

TEST(StopMatcherTest, TheMatchThatEndsFirstWins) {
  StopMatcher m({"bcd", "c"}, false);
  EXPECT_EQ(Feed(&m, {"abcd"}), "ab");
  EXPECT_EQ(m.matched(), "c");
  StopMatcher longest({"c", "bc"}, false);
  EXPECT_EQ(Feed(&longest, {"abcd"}), "a");
  EXPECT_EQ(longest.matched(), "bc");
}

TEST(StopMatcherTest, AnEmptyStringNeverMatches) {
  StopMatcher m({""}, false);
  EXPECT_EQ(Feed(&m, {"abc"}), "abc");
}

TEST(StopMatcherTest, HowTheTextIsCutMakesNoDifference) {
  Rng rng(3);
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (int i = 0; i < 20; ++i) text += static_cast<char>('a' + rng.Below(2));
    std::vector<std::string> stop;
    for (int i = 0; i < 3; ++i) {
      std::string s;
      for (uint64_t n = 2 + rng.Below(5); n > 0; --n) {
        s += static_cast<char>('a' + rng.Below(2));
      }
      stop.push_back(s);
    }
    std::vector<std::string> pieces;
    for (size_t i = 0; i < text.size();) {
      const size_t n = 1 + rng.Below(4);
      pieces.push_back(text.substr(i, n));
      i += n;
    }
    StopMatcher whole(stop, false), cut(stop, false);
    EXPECT_EQ(Feed(&whole, {text}), Feed(&cut, pieces)) << text;
    EXPECT_EQ(whole.matched(), cut.matched());
  }
}

}  // namespace
}  // namespace lorikeet
