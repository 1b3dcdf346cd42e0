#include "server/frontend/watched_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/frontend/fake_engine.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using testing::FakeStream;

class WatchedStreamTest : public ::testing::Test {
 protected:
  const std::shared_ptr<FakeStream> inner_ = std::make_shared<FakeStream>();
  std::vector<StreamResult> results_;
  std::unique_ptr<WatchedStream> stream_ = std::make_unique<WatchedStream>(
      inner_, [this](StreamResult r) { results_.push_back(std::move(r)); });
};

TEST_F(WatchedStreamTest, TellsOnceWhatTheReaderGot) {
  inner_->PushTokens({1, 2});
  inner_->PushTokens({7}, /*candidate=*/1);
  inner_->PushTokens({3});
  int events = 0;
  while (stream_->Next()) ++events;
  EXPECT_TRUE(results_.empty());
  inner_->Finish(absl::Milliseconds(9));
  while (stream_->Next()) ++events;
  EXPECT_TRUE(stream_->done());
  EXPECT_EQ(events, 4);
  stream_.reset();
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_TRUE(results_[0].status.ok());
  EXPECT_FALSE(results_[0].was_aborted);
  EXPECT_EQ(results_[0].time_to_first_token, absl::Milliseconds(9));
  EXPECT_THAT(results_[0].tokens,
              ElementsAre(ElementsAre(1, 2, 3), ElementsAre(7)));
}

TEST_F(WatchedStreamTest, TellsAnError) {
  inner_->Fail(absl::DataLossError("damaged"));
  EXPECT_TRUE(stream_->done());
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_EQ(results_[0].status, absl::DataLossError("damaged"));
}

TEST_F(WatchedStreamTest, TellsAnAbort) {
  inner_->Finish(absl::ZeroDuration(), FinishReason::kAbort);
  while (stream_->Next()) {
  }
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_TRUE(results_[0].was_aborted);
}

TEST_F(WatchedStreamTest, TellsThatTheReaderWentAway) {
  inner_->PushTokens({1});
  stream_->Next();
  stream_.reset();
  ASSERT_EQ(results_.size(), 1u);
  EXPECT_EQ(results_[0].status.code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace lorikeet
