// A StreamBuffer is the TokenStream between the engine and one reader.
//
// The engine pushes, the reader takes; deltas of one candidate that nobody has
// read yet become one. They still count as they were pushed: from max_deltas
// on the buffer is full, and the engine stops planning the request until the
// reader has made room.
//
// Thread-safe. Never blocks, but SetCallback waits for a running callback.

#ifndef LORIKEET_SERVER_ENGINE_TOKEN_STREAM_H_
#define LORIKEET_SERVER_ENGINE_TOKEN_STREAM_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "server/engine/engine.h"
#include "server/engine/inbox.h"
#include "server/scheduler/scheduler.h"

namespace lorikeet {

class StreamBuffer final : public TokenStream {
 public:
  StreamBuffer(RequestId id, int32_t max_deltas, std::shared_ptr<Inbox> inbox);

  // ---- reader --------------------------------------------------------------
  std::optional<StreamEvent> Next() override;
  bool done() const override;
  absl::Status status() const override;
  void SetCallback(std::function<void()> callback) override;
  void Cancel() override;

  // ---- engine --------------------------------------------------------------
  // Adds an event; the reader hears of it with the next Notify.
  void Push(StreamEvent event);
  // Nothing follows. The first end counts.
  void End(const absl::Status& status);
  // Runs the callback, unless it is running: then it runs once more.
  void Notify();
  bool is_full() const;

 private:
  struct Buffered {
    StreamEvent event;
    int32_t deltas = 0;  // that became one
  };

  const RequestId id_;
  const int32_t max_deltas_;
  const std::shared_ptr<Inbox> inbox_;

  mutable Mutex mu_;
  CondVar callback_ended_;
  std::deque<Buffered> events_ ABSL_GUARDED_BY(mu_);
  int32_t num_deltas_ ABSL_GUARDED_BY(mu_) = 0;
  bool has_ended_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const std::function<void()>> callback_ ABSL_GUARDED_BY(mu_);
  bool is_in_callback_ ABSL_GUARDED_BY(mu_) = false;
  bool must_call_again_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_TOKEN_STREAM_H_
