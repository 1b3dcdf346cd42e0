// A WatchedStream gives its reader exactly what another stream gives, and tells
// somebody once how it ended.
//
// Thread-safe; blocks no more than the other stream does.

#ifndef LORIKEET_SERVER_FRONTEND_WATCHED_STREAM_H_
#define LORIKEET_SERVER_FRONTEND_WATCHED_STREAM_H_

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "base/token.h"
#include "server/engine/engine.h"

namespace lorikeet {

// How a request ended, as its reader saw it.
struct StreamResult {
  // CANCELLED if the reader went away before the end.
  absl::Status status;
  bool was_aborted = false;  // by the server: drain, deletion
  absl::Duration time_to_first_token;
  std::vector<std::vector<Token>> tokens;  // per candidate
};

class WatchedStream final : public TokenStream {
 public:
  // `on_end` runs on a reader's thread, or in the destructor.
  WatchedStream(std::shared_ptr<TokenStream> stream,
                std::function<void(StreamResult)> on_end);
  ~WatchedStream() override;

  std::optional<StreamEvent> Next() override;
  bool done() const override;
  absl::Status status() const override { return stream_->status(); }
  void SetCallback(std::function<void()> callback) override {
    stream_->SetCallback(std::move(callback));
  }
  void Cancel() override { stream_->Cancel(); }

 private:
  void Take(const StreamEvent& event);
  // Tells of the end, the first time.
  void Report(const absl::Status& status) const;

  const std::shared_ptr<TokenStream> stream_;
  const std::function<void(StreamResult)> on_end_;
  mutable Mutex mu_;
  mutable bool was_reported_ ABSL_GUARDED_BY(mu_) = false;
  mutable StreamResult result_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_WATCHED_STREAM_H_
