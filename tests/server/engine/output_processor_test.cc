#include "server/engine/output_processor.h"

#include <memory>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;

class OutputProcessorTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    PosixFileSystem fs;
    auto tokenizer =
        Tokenizer::Load(fs, JoinPath(testing::SourceDir(), "demo/base"));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = std::move(*tokenizer).release();
  }
  static void TearDownTestSuite() { delete tokenizer_; }

  OutputProcessorTest() {
    request_.prompt = Encode("hi ");
    request_.stop.max_tokens = 100;
  }
  std::vector<Token> Encode(const std::string& text) {
    return *tokenizer_->Encode(text, {.add_special_tokens = false});
  }
  // One token per byte.
  std::vector<Token> Letters(const std::string& text) {
    std::vector<Token> tokens;
    for (const char c : text) {
      for (const Token t : Encode(std::string(1, c))) tokens.push_back(t);
    }
    return tokens;
  }
  static SampledRow Row(Token token) {
    SampledRow row;
    row.token = token;
    row.logprob = -0.5f;
    return row;
  }
  // Feeds tokens until the candidate ends; true if it did.
  bool Feed(OutputProcessor* out, const std::vector<Token>& tokens) {
    for (const Token t : tokens) {
      if (out->Append(Row(t))) return true;
    }
    return false;
  }
  OutputProcessor Make() {
    return OutputProcessor(tokenizer_, request_, request_.stop.max_tokens);
  }

  static const Tokenizer* tokenizer_;
  EngineRequest request_;
};
const Tokenizer* OutputProcessorTest::tokenizer_ = nullptr;

TEST_F(OutputProcessorTest, EndsAtMaxTokens) {
  request_.stop.max_tokens = 3;
  OutputProcessor out = Make();
  EXPECT_TRUE(Feed(&out, Letters("abcdef")));
  EXPECT_EQ(out.reason(), FinishReason::kLength);
  EXPECT_EQ(out.num_tokens(), 3);
  EXPECT_EQ(out.TakeDelta().text, "abc");
}

TEST_F(OutputProcessorTest, AnEndTokenIsReportedAndHasNoText) {
  const Token x = Letters("x")[0];
  request_.stop.eos_tokens = {x};
  OutputProcessor out = Make();
  EXPECT_TRUE(Feed(&out, Letters("abx")));
  EXPECT_EQ(out.reason(), FinishReason::kStop);
  EXPECT_FALSE(out.matched_token().has_value());
  const DeltaEvent delta = out.TakeDelta();
  EXPECT_EQ(delta.text, "ab");
  EXPECT_EQ(delta.tokens.size(), 3u);
}

TEST_F(OutputProcessorTest, NamesAStopTokenThatIsNotTheEndToken) {
  const Token x = Letters("x")[0];
  request_.stop.stop_token_ids = {x};
  OutputProcessor out = Make();
  EXPECT_TRUE(Feed(&out, Letters("abx")));
  EXPECT_EQ(out.matched_token(), x);
}

TEST_F(OutputProcessorTest, GivesTheTextOfAStopTokenIfAsked) {
  request_.stop.stop_token_ids = {Letters("x")[0]};
  request_.stop.include_stop_str_in_output = true;
  OutputProcessor out = Make();
  EXPECT_TRUE(Feed(&out, Letters("abx")));
  EXPECT_EQ(out.TakeDelta().text, "abx");
}

TEST_F(OutputProcessorTest, CutsTextAtAStopStringAndReportsAllTokens) {
  request_.stop.stop = {"ENDE"};
  OutputProcessor out = Make();
  EXPECT_TRUE(Feed(&out, Letters("abENDEcd")));
  EXPECT_EQ(out.matched_stop(), "ENDE");
  const DeltaEvent delta = out.TakeDelta();
  EXPECT_EQ(delta.text, "ab");
  EXPECT_EQ(delta.tokens.size(), 6u);
}

TEST_F(OutputProcessorTest, HoldsBackWhatMayBeAStopString) {
  request_.stop.stop = {"ENDE"};
  OutputProcessor out = Make();
  Feed(&out, Letters("abEN"));
  EXPECT_EQ(out.TakeDelta().text, "ab");
  Feed(&out, Letters("!"));
  EXPECT_EQ(out.TakeDelta().text, "EN!");
}

TEST_F(OutputProcessorTest, GivesOutWhatWasHeldWhenTheLengthEndsIt) {
  request_.stop.stop = {"ENDE"};
  request_.stop.max_tokens = 4;
  OutputProcessor out = Make();
  EXPECT_TRUE(Feed(&out, Letters("abEN")));
  EXPECT_EQ(out.TakeDelta().text, "abEN");
}

TEST_F(OutputProcessorTest, NothingStopsBeforeMinTokens) {
  request_.stop.stop = {"b"};
  request_.stop.eos_tokens = {Letters("x")[0]};
  request_.stop.min_tokens = 3;
  OutputProcessor out = Make();
  EXPECT_FALSE(Feed(&out, Letters("abx")));
  EXPECT_TRUE(Feed(&out, Letters("ab")));
  EXPECT_EQ(out.num_tokens(), 5);
  EXPECT_EQ(out.TakeDelta().text, "abxa");
}

TEST_F(OutputProcessorTest, NeverSplitsACodePoint) {
  OutputProcessor out = Make();
  std::string text;
  const std::vector<Token> tokens = Encode("\u00e4\u20ac\U0001f600");
  ASSERT_GT(tokens.size(), 3u);
  for (const Token t : tokens) {
    out.Append(Row(t));
    const std::string piece = out.TakeDelta().text;
    EXPECT_TRUE(piece.empty() || (piece[0] & 0xC0) != 0x80);
    text += piece;
  }
  EXPECT_EQ(text, "\u00e4\u20ac\U0001f600");
}

TEST_F(OutputProcessorTest, AnUnfinishedCodePointIsReplacedAtTheEnd) {
  request_.stop.max_tokens = 1;
  OutputProcessor out = Make();
  out.Append(Row(Encode("\U0001f600")[0]));
  EXPECT_EQ(out.TakeDelta().text, "\ufffd");
}

TEST_F(OutputProcessorTest, EchoGivesThePromptsTextFirst) {
  request_.output.echo = true;
  request_.stop.stop = {"hi"};
  OutputProcessor out = Make();
  EXPECT_FALSE(Feed(&out, Letters("ab")));
  const DeltaEvent delta = out.TakeDelta();
  EXPECT_EQ(delta.text, "hi ab");
  EXPECT_EQ(delta.tokens.size(), 2u);
}

TEST_F(OutputProcessorTest, WithoutTextStopStringsStillWork) {
  request_.output.text = false;
  request_.stop.stop = {"bc"};
  OutputProcessor out = Make();
  EXPECT_TRUE(Feed(&out, Letters("abcd")));
  const DeltaEvent delta = out.TakeDelta();
  EXPECT_EQ(delta.text, "");
  EXPECT_EQ(delta.tokens.size(), 3u);
}

TEST_F(OutputProcessorTest, ReportsLogprobsOnlyIfAsked) {
  OutputProcessor without = Make();
  without.Append(Row(1));
  EXPECT_TRUE(without.TakeDelta().logprobs.empty());
  request_.output.num_logprobs = 0;
  OutputProcessor with = Make();
  with.Append(Row(1));
  const DeltaEvent delta = with.TakeDelta();
  ASSERT_EQ(delta.logprobs.size(), 1u);
  EXPECT_EQ(delta.logprobs[0].logprob, -0.5f);
}

TEST_F(OutputProcessorTest, AbortGivesOutWhatWasHeld) {
  request_.stop.stop = {"ENDE"};
  OutputProcessor out = Make();
  Feed(&out, Letters("abEN"));
  out.Abort();
  EXPECT_EQ(out.reason(), FinishReason::kAbort);
  EXPECT_EQ(out.TakeDelta().text, "abEN");
}

}  // namespace
}  // namespace lorikeet
