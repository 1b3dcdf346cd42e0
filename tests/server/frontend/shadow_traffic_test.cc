#include "server/frontend/shadow_traffic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/server/frontend/fake_engine.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using testing::FakeEngine;
using ::testing::IsEmpty;

class ShadowTrafficTest : public ::testing::Test {
 protected:
  std::shared_ptr<ShadowTraffic::Run> Start() {
    EngineRequest request;
    request.prompt = {1};
    request.output.num_logprobs = 3;
    return shadows_->Start(std::move(request),
                           [this](ShadowVerdict v) { verdicts_.push_back(v); });
  }
  static StreamResult Got(std::vector<Token> tokens) {
    StreamResult result;
    result.tokens = {std::move(tokens)};
    return result;
  }

  FakeEngine engine_;
  std::vector<ShadowVerdict> verdicts_;
  std::unique_ptr<ShadowTraffic> shadows_ =
      std::make_unique<ShadowTraffic>(engine_);
};

TEST_F(ShadowTrafficTest, ComparesWhenBothHaveEnded) {
  for (const bool shadow_first : {true, false}) {
    for (const Token last : {3, 4}) {
      const auto run = Start();
      const auto finish = [&] {
        engine_.streams.back()->PushTokens({1, 2});
        engine_.streams.back()->PushTokens({3});
        engine_.streams.back()->Finish();
      };
      if (shadow_first) finish();
      const size_t before = verdicts_.size();
      ShadowTraffic::Compare(run, Got({1, 2, last}));
      if (!shadow_first) {
        EXPECT_EQ(verdicts_.size(), before);
        finish();
      }
    }
  }
  EXPECT_THAT(verdicts_,
              ElementsAre(ShadowVerdict::kEqual, ShadowVerdict::kDifferent,
                          ShadowVerdict::kEqual, ShadowVerdict::kDifferent));
}

TEST_F(ShadowTrafficTest, RunsAfterEverybodyElseAndAsksForTokensOnly) {
  Start();
  ASSERT_EQ(engine_.requests.size(), 1u);
  EXPECT_EQ(engine_.requests[0].priority, std::numeric_limits<int32_t>::max());
  EXPECT_EQ(engine_.requests[0].output.num_logprobs, -1);
  EXPECT_FALSE(engine_.requests[0].output.text);
}

TEST_F(ShadowTrafficTest, SaysThatTheShadowFailed) {
  const auto run = Start();
  engine_.streams[0]->Fail(absl::InternalError("broken"));
  EXPECT_THAT(verdicts_, ElementsAre(ShadowVerdict::kFailed));
  ShadowTraffic::Compare(run, Got({1}));
  EXPECT_EQ(verdicts_.size(), 1u);
}

TEST_F(ShadowTrafficTest, IsGivenUpWithTheRequest) {
  const auto run = Start();
  StreamResult gone;
  gone.status = absl::CancelledError("gone");
  ShadowTraffic::Compare(run, gone);
  EXPECT_THAT(verdicts_, ElementsAre(ShadowVerdict::kSkipped));
  EXPECT_EQ(engine_.streams[0]->status().code(), absl::StatusCode::kCancelled);
}

TEST_F(ShadowTrafficTest, IsSkippedWhereTheEngineRefuses) {
  engine_.refusal = absl::ResourceExhaustedError("full");
  EXPECT_EQ(Start(), nullptr);
  EXPECT_THAT(verdicts_, ElementsAre(ShadowVerdict::kSkipped));
}

TEST_F(ShadowTrafficTest, IsBoundedInNumber) {
  for (int i = 0; i < ShadowTraffic::kMaxRunning; ++i) {
    EXPECT_NE(Start(), nullptr);
  }
  EXPECT_EQ(Start(), nullptr);
  EXPECT_THAT(verdicts_, ElementsAre(ShadowVerdict::kSkipped));
  engine_.streams[3]->Fail(absl::InternalError("broken"));
  EXPECT_NE(Start(), nullptr);  // its place is free
}

TEST_F(ShadowTrafficTest, EndsWithWhatRuns) {
  const auto run = Start();
  shadows_.reset();
  EXPECT_THAT(verdicts_, ElementsAre(ShadowVerdict::kSkipped));
  ShadowTraffic::Compare(run, Got({1}));  // harmless
  EXPECT_EQ(verdicts_.size(), 1u);
}

TEST_F(ShadowTrafficTest, SaysNothingWhileBothRun) {
  const auto run = Start();
  engine_.streams[0]->PushTokens({1});
  EXPECT_THAT(verdicts_, IsEmpty());
}

}  // namespace
}  // namespace lorikeet
