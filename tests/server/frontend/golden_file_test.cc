#include "server/frontend/golden_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "base/reason.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

void ExpectInvalid(const std::string& text, const std::string& message) {
  const absl::Status status = ParseGoldenFile(text).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  EXPECT_EQ(ReasonOf(status), "GOLDEN_INVALID");
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

TEST(GoldenFileTest, ReadsALineACase) {
  const auto cases = ParseGoldenFile(
      "{\"prompt\": \"Hi\", \"tokens\": [1, 2]}\n"
      "\n"
      "{\"token_ids\": [3], \"logits\": [0.5, -1], \"tolerance\": 0.001}\r\n");
  ASSERT_TRUE(cases.ok()) << cases.status();
  ASSERT_EQ(cases->size(), 2u);
  EXPECT_EQ((*cases)[0].line, 1);
  EXPECT_EQ((*cases)[0].prompt, "Hi");
  EXPECT_THAT((*cases)[0].tokens, ElementsAre(1, 2));
  EXPECT_EQ((*cases)[0].tolerance, kDefaultGoldenTolerance);
  EXPECT_EQ((*cases)[1].line, 3);
  EXPECT_THAT((*cases)[1].token_ids, ElementsAre(3));
  EXPECT_THAT((*cases)[1].logits, ElementsAre(0.5f, -1.f));
  EXPECT_EQ((*cases)[1].tolerance, 0.001);
  EXPECT_TRUE(ParseGoldenFile("")->empty());
}

TEST(GoldenFileTest, NamesTheLineAndFieldThatIsWrong) {
  ExpectInvalid("{", "line 1: ");
  ExpectInvalid("\n[]", "line 2: is a list");
  ExpectInvalid(R"({"tokens": [1]})", "either prompt or token_ids");
  ExpectInvalid(R"({"prompt": "a", "token_ids": [1], "tokens": [1]})",
                "either prompt or token_ids");
  ExpectInvalid(R"({"prompt": "a"})", "needs tokens or logits");
  ExpectInvalid(R"({"prompt": 5, "tokens": [1]})", "prompt is no string");
  ExpectInvalid(R"({"token_ids": [1, -1], "tokens": [1]})", "token_ids[1]");
  ExpectInvalid(R"({"token_ids": [1], "tokens": "x"})", "tokens is a string");
  ExpectInvalid(R"({"token_ids": [1], "logits": [1, "x"]})", "logits[1]");
  ExpectInvalid(R"({"prompt": "a", "tokens": [1], "tolerance": 2})",
                "tolerance");
  ExpectInvalid(R"({"prompt": "a", "tokens": [1], "toknes": [1]})",
                "unknown field \"toknes\"");
}

TEST(GoldenFileTest, HasALimit) {
  std::string text;
  for (size_t i = 0; i < kMaxGoldenCases; ++i) {
    absl::StrAppend(&text, "{\"token_ids\": [1], \"tokens\": [1]}\n");
  }
  EXPECT_TRUE(ParseGoldenFile(text).ok());
  ExpectInvalid(text + "{\"token_ids\": [1], \"tokens\": [1]}\n",
                "more than 256 cases");
}

TEST(GoldenFileTest, ComparesTokensAsFarAsTheyAreExpected) {
  GoldenCase golden;
  golden.line = 4;
  golden.tokens = {1, 2, 3};
  EXPECT_TRUE(CompareTokens(golden, {1, 2, 3}).ok());
  EXPECT_TRUE(CompareTokens(golden, {1, 2, 3, 4}).ok());
  const absl::Status wrong = CompareTokens(golden, {1, 9, 3});
  EXPECT_EQ(ReasonOf(wrong), "GOLDEN_MISMATCH");
  EXPECT_EQ(wrong.message(), "golden.jsonl line 4: token 1 is 9, expected 2");
  EXPECT_EQ(CompareTokens(golden, {1, 2}).message(),
            "golden.jsonl line 4: got 2 tokens, expected 3");
}

TEST(GoldenFileTest, ComparesLogitsInUnitsOfTheirRms) {
  GoldenCase golden;
  golden.line = 7;
  golden.logits = {3, -3, 3, -3};  // RMS 3
  golden.tolerance = 0.1;
  EXPECT_TRUE(CompareLogits(golden, {3.25, -3, 3, -2.75}).ok());
  const absl::Status wrong = CompareLogits(golden, {3, -3, 3.5, -3});
  EXPECT_EQ(ReasonOf(wrong), "GOLDEN_MISMATCH");
  EXPECT_THAT(std::string(wrong.message()),
              HasSubstr("line 7: logit 2 is 3.5, expected 3: off by 0.5, the "
                        "limit is 0.3"));
  EXPECT_FALSE(CompareLogits(golden, {3, -3, 3}).ok());
  EXPECT_FALSE(
      CompareLogits(golden, {3, -3, 3, std::numeric_limits<float>::quiet_NaN()})
          .ok());
  EXPECT_TRUE(CompareLogits(GoldenCase(), {}).ok());
}

}  // namespace
}  // namespace lorikeet
