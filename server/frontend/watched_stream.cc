#include "server/frontend/watched_stream.h"

#include <utility>
#include <variant>

namespace lorikeet {

WatchedStream::WatchedStream(std::shared_ptr<TokenStream> stream,
                             std::function<void(StreamResult)> on_end)
    : stream_(std::move(stream)), on_end_(std::move(on_end)) {}

WatchedStream::~WatchedStream() {
  Report(stream_->done()
             ? stream_->status()
             : absl::CancelledError("nobody read the stream to its end"));
}

std::optional<StreamEvent> WatchedStream::Next() {
  std::optional<StreamEvent> event = stream_->Next();
  if (event.has_value()) Take(*event);
  if (stream_->done()) Report(stream_->status());
  return event;
}

bool WatchedStream::done() const {
  if (!stream_->done()) return false;
  Report(stream_->status());
  return true;
}

void WatchedStream::Take(const StreamEvent& event) {
  MutexLock lock(&mu_);
  if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
    const size_t index = static_cast<size_t>(delta->candidate);
    if (result_.tokens.size() <= index) result_.tokens.resize(index + 1);
    std::vector<Token>& tokens = result_.tokens[index];
    tokens.insert(tokens.end(), delta->tokens.begin(), delta->tokens.end());
  } else if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
    result_.was_aborted |= finished->reason == FinishReason::kAbort;
    result_.time_to_first_token = finished->timings.time_to_first_token;
  }
}

void WatchedStream::Report(const absl::Status& status) const {
  StreamResult result;
  {
    MutexLock lock(&mu_);
    if (std::exchange(was_reported_, true)) return;
    result = std::move(result_);
  }
  result.status = status;
  on_end_(std::move(result));
}

}  // namespace lorikeet
