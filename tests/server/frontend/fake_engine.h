// An engine whose streams a test fills by hand.

#ifndef LORIKEET_TESTS_SERVER_FRONTEND_FAKE_ENGINE_H_
#define LORIKEET_TESTS_SERVER_FRONTEND_FAKE_ENGINE_H_

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/engine/engine.h"

namespace lorikeet::testing {

class FakeStream final : public TokenStream {
 public:
  void Push(StreamEvent event) {
    events_.push_back(std::move(event));
    Notify();
  }
  void PushTokens(std::vector<Token> tokens, int32_t candidate = 0) {
    DeltaEvent delta;
    delta.candidate = candidate;
    delta.tokens = std::move(tokens);
    Push(delta);
  }
  void Finish(absl::Duration first_token = absl::Milliseconds(5),
              FinishReason reason = FinishReason::kStop) {
    FinishedEvent finished;
    finished.reason = reason;
    finished.timings.time_to_first_token = first_token;
    has_ended_ = true;
    Push(finished);
  }
  void Fail(absl::Status status) {
    status_ = std::move(status);
    has_ended_ = true;
    Notify();
  }

  std::optional<StreamEvent> Next() override {
    if (events_.empty()) return std::nullopt;
    StreamEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }
  bool done() const override {
    return has_ended_ && (events_.empty() || !status_.ok());
  }
  absl::Status status() const override { return status_; }
  void SetCallback(std::function<void()> callback) override {
    callback_ = std::move(callback);
    if (has_ended_ || !events_.empty()) Notify();
  }
  void Cancel() override {
    if (!has_ended_) Fail(absl::CancelledError("cancelled"));
  }

 private:
  void Notify() {
    const auto callback = callback_;
    if (callback) callback();
  }
  std::deque<StreamEvent> events_;
  absl::Status status_;
  bool has_ended_ = false;
  std::function<void()> callback_;
};

class FakeEngine final : public Engine {
 public:
  absl::StatusOr<std::shared_ptr<TokenStream>> Submit(
      EngineRequest request) override {
    if (!refusal.ok()) return refusal;
    requests.push_back(std::move(request));
    streams.push_back(std::make_shared<FakeStream>());
    return std::static_pointer_cast<TokenStream>(streams.back());
  }
  int64_t Drain(absl::Duration) override { return 0; }
  void AbortAdapter(const std::string&, const std::string&) override {}
  void AbortAll() override {}
  int64_t FlushPrefixCache() override { return 0; }
  EngineLoad load() const override { return {}; }
  const EngineOptions& options() const override { return options_; }
  void WaitUntilIdle() override {}
  void SetHeld(bool) override {}

  absl::Status refusal;
  std::vector<EngineRequest> requests;
  std::vector<std::shared_ptr<FakeStream>> streams;

 private:
  EngineOptions options_;
};

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_SERVER_FRONTEND_FAKE_ENGINE_H_
