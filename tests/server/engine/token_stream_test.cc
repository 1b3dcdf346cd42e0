#include "server/engine/token_stream.h"

#include <memory>
#include <string>
#include <variant>

#include "base/background_queue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/request_state.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;

DeltaEvent Delta(int32_t candidate, std::string text, Token token) {
  DeltaEvent delta;
  delta.candidate = candidate;
  delta.text = std::move(text);
  delta.tokens = {token};
  return delta;
}

class StreamBufferTest : public ::testing::Test {
 protected:
  std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>(10, false);
  StreamBuffer stream_{RequestId(7), 3, inbox_};
};

TEST_F(StreamBufferTest, GivesEventsInOrder) {
  stream_.Push(StartedEvent{});
  stream_.Push(Delta(0, "a", 1));
  stream_.Push(FinishedEvent{});
  EXPECT_TRUE(std::holds_alternative<StartedEvent>(*stream_.Next()));
  EXPECT_TRUE(std::holds_alternative<DeltaEvent>(*stream_.Next()));
  EXPECT_TRUE(std::holds_alternative<FinishedEvent>(*stream_.Next()));
  EXPECT_EQ(stream_.Next(), std::nullopt);
}

TEST_F(StreamBufferTest, CoalescesDeltasOfACandidate) {
  stream_.Push(Delta(0, "a", 1));
  stream_.Push(Delta(1, "x", 5));
  stream_.Push(Delta(0, "b", 2));
  const auto first = std::get<DeltaEvent>(*stream_.Next());
  EXPECT_EQ(first.text, "ab");
  EXPECT_THAT(first.tokens, ElementsAre(1, 2));
  EXPECT_EQ(std::get<DeltaEvent>(*stream_.Next()).text, "x");
}

TEST_F(StreamBufferTest, IsFullAfterSoManyDeltasAndTellsWhenItIsNot) {
  stream_.Push(Delta(0, "a", 1));
  stream_.Push(Delta(0, "b", 2));
  EXPECT_FALSE(stream_.is_full());
  stream_.Push(Delta(0, "c", 3));
  EXPECT_TRUE(stream_.is_full());
  stream_.Next();
  EXPECT_FALSE(stream_.is_full());
  Inbox::Mail mail;
  inbox_->Take(&mail);
  EXPECT_THAT(mail.drained, ElementsAre(RequestId(7)));
}

TEST_F(StreamBufferTest, IsDoneWhenTheLastEventWasRead) {
  stream_.Push(FinishedEvent{});
  EXPECT_FALSE(stream_.done());
  stream_.End(absl::OkStatus());
  EXPECT_FALSE(stream_.done());
  stream_.Next();
  EXPECT_TRUE(stream_.done());
  EXPECT_TRUE(stream_.status().ok());
}

TEST_F(StreamBufferTest, AnErrorEndsItAtOnce) {
  stream_.Push(Delta(0, "a", 1));
  stream_.End(absl::InternalError("x"));
  stream_.End(absl::OkStatus());
  EXPECT_TRUE(stream_.done());
  EXPECT_EQ(stream_.status().code(), absl::StatusCode::kInternal);
}

TEST_F(StreamBufferTest, CancelTellsTheEngineUnlessItHasEnded) {
  stream_.Cancel();
  Inbox::Mail mail;
  inbox_->Take(&mail);
  EXPECT_THAT(mail.cancelled, ElementsAre(RequestId(7)));
  stream_.End(absl::OkStatus());
  stream_.Cancel();
  inbox_->Take(&mail);
  EXPECT_TRUE(mail.cancelled.empty());
}

TEST_F(StreamBufferTest, CallsBackAtOnceIfThereIsSomethingToRead) {
  int calls = 0;
  stream_.SetCallback([&] { ++calls; });
  EXPECT_EQ(calls, 0);
  stream_.Push(Delta(0, "a", 1));
  EXPECT_EQ(calls, 0);
  stream_.Notify();
  EXPECT_EQ(calls, 1);
  stream_.SetCallback([&] { calls += 10; });
  EXPECT_EQ(calls, 11);
  stream_.SetCallback(nullptr);
  stream_.Notify();
  EXPECT_EQ(calls, 11);
}

TEST_F(StreamBufferTest, ACallbackMayStopItself) {
  int calls = 0;
  stream_.SetCallback([&] {
    ++calls;
    while (stream_.Next().has_value()) {
    }
    stream_.SetCallback(nullptr);
  });
  stream_.Push(Delta(0, "a", 1));
  stream_.Notify();
  stream_.Notify();
  EXPECT_EQ(calls, 1);
}

TEST_F(StreamBufferTest, AStoppedCallbackRunsNoMore) {
  for (int round = 0; round < 200; ++round) {
    auto alive = std::make_unique<int>(0);
    BackgroundThread engine("engine", [&] {
      for (int i = 0; i < 50; ++i) {
        stream_.Push(Delta(0, "a", 1));
        stream_.Notify();
      }
    });
    stream_.SetCallback([p = alive.get()] { ++*p; });
    stream_.SetCallback(nullptr);
    alive.reset();  // A late call would be seen by the address sanitizer.
  }
}

}  // namespace
}  // namespace lorikeet
