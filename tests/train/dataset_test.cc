#include "train/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file_system.h"
#include "tests/testing/golden.h"

namespace lorikeet::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DatasetTest : public ::testing::Test {
 protected:
  DatasetTest() {
    tokenizer_ = Tokenizer::Load(fs_, SourceDir() + "/demo/base").value();
    options_.tokenizer = tokenizer_.get();
    options_.end_token = 339;
    options_.vocab_size = 350;
    options_.max_tokens = 32;
    options_.max_tokens_of = "--token-budget";
  }

  // The error's message; "" if there is none.
  std::string ErrorOf(absl::string_view text) {
    const absl::StatusOr<Dataset> data = Dataset::Parse(text, "f", options_);
    return data.ok() ? "" : std::string(data.status().message());
  }

  PosixFileSystem fs_;
  std::unique_ptr<Tokenizer> tokenizer_;
  DatasetOptions options_;
};

TEST_F(DatasetTest, ACompletionAndItsEndTokenAreLearned) {
  const Dataset data =
      Dataset::Parse("{\"prompt\": \"ab\", \"completion\": \"c\"}", "f",
                     options_)
          .value();
  const TrainSequence& s = data.sequences()[0];
  ASSERT_EQ(s.size(), 4);
  EXPECT_EQ(s.tokens[3], 339);
  EXPECT_THAT(s.is_target, ElementsAre(false, false, true, true));
  EXPECT_EQ(s.line, 1);
}

TEST_F(DatasetTest, AllButTheFirstTokenAreLearnedOnRequest) {
  options_.learn_all = true;
  const Dataset data =
      Dataset::Parse("{\"prompt\": \"ab\", \"completion\": \"c\"}", "f",
                     options_)
          .value();
  EXPECT_THAT(data.sequences()[0].is_target,
              ElementsAre(false, true, true, true));
}

TEST_F(DatasetTest, TokenIdsKeepTheirMask) {
  const Dataset data = Dataset::Parse(
                           "\n{\"token_ids\": [5, 6, 7], \"loss_mask\": [0, 1, "
                           "0]}\n\n",
                           "f", options_)
                           .value();
  ASSERT_EQ(data.size(), 1);
  EXPECT_THAT(data.sequences()[0].tokens, ElementsAre(5, 6, 7));
  EXPECT_THAT(data.sequences()[0].is_target, ElementsAre(false, true, false));
  EXPECT_EQ(data.sequences()[0].line, 2);
}

TEST_F(DatasetTest, AnEmptyFileHasNoExample) {
  EXPECT_EQ(ErrorOf(""), "f has no example");
  EXPECT_EQ(ErrorOf(" \n\n"), "f has no example");
}

TEST_F(DatasetTest, AHalfWrittenLineIsNamed) {
  EXPECT_THAT(ErrorOf("{\"prompt\": \"a\", \"completion\": \"b\"}\n"
                      "{\"prompt\": \"a\", \"compl"),
              HasSubstr("f line 2: "));
}

TEST_F(DatasetTest, WrongFieldsAreNamedWithTheirLine) {
  EXPECT_THAT(ErrorOf("[1]"), HasSubstr("f line 1: is a list"));
  EXPECT_THAT(ErrorOf("{\"prompt\": \"a\"}"),
              HasSubstr("f line 1 field \"completion\""));
  EXPECT_THAT(ErrorOf("{\"prompt\": 3, \"completion\": \"b\"}"),
              HasSubstr("field \"prompt\""));
  EXPECT_THAT(
      ErrorOf("{\"prompt\": \"a\", \"completion\": \"b\", \"weight\": 2}"),
      HasSubstr("unknown field \"weight\""));
  EXPECT_THAT(ErrorOf("{\"token_ids\": [1, 350], \"loss_mask\": [0, 1]}"),
              HasSubstr("has 350, expected an integer in [0, 349]"));
  EXPECT_THAT(ErrorOf("{\"token_ids\": [1, 2], \"loss_mask\": [0]}"),
              HasSubstr("is no list of 2 numbers"));
  EXPECT_THAT(ErrorOf("{\"token_ids\": [1, 2], \"loss_mask\": [0, 2]}"),
              HasSubstr("has 2, expected 0 or 1"));
  EXPECT_THAT(ErrorOf("{\"token_ids\": [1, 2], \"loss_mask\": [1, 1]}"),
              HasSubstr("begins with 1"));
  EXPECT_THAT(ErrorOf("{\"token_ids\": [1, 2], \"loss_mask\": [0, 0]}"),
              HasSubstr("f line 1: has nothing to learn"));
  EXPECT_THAT(ErrorOf("{\"prompt\": \"\", \"completion\": \"b\"}"),
              HasSubstr("field \"prompt\" has no token"));
}

TEST_F(DatasetTest, ACompletionLongerThanTheLimitIsRefusedByLine) {
  const std::string text =
      "{\"prompt\": \"a\", \"completion\": \"" + std::string(40, 'b') + "\"}";
  EXPECT_EQ(ErrorOf(text),
            "f line 1: has 42 tokens, more than --token-budget 32");
}

TEST_F(DatasetTest, TextNeedsATokenizer) {
  options_.tokenizer = nullptr;
  EXPECT_THAT(ErrorOf("{\"prompt\": \"a\", \"completion\": \"b\"}"),
              HasSubstr("no tokenizer.json"));
}

TEST_F(DatasetTest, AMissingFileIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(
      Dataset::Read(fs_, "/nowhere/x.jsonl", options_).status()));
}

}  // namespace
}  // namespace lorikeet::testing
