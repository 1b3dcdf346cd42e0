#include "server/engine/token_stream.h"

#include <iterator>
#include <utility>
#include <variant>

namespace lorikeet {
namespace {

// The stream whose callback runs on this thread: from inside of it SetCallback
// must not wait for it.
thread_local const StreamBuffer* t_calling_back = nullptr;

void Coalesce(DeltaEvent from, DeltaEvent* to) {
  to->text += from.text;
  to->tokens.insert(to->tokens.end(), from.tokens.begin(), from.tokens.end());
  std::move(from.logprobs.begin(), from.logprobs.end(),
            std::back_inserter(to->logprobs));
}

}  // namespace

StreamBuffer::StreamBuffer(RequestId id, int32_t max_deltas,
                           std::shared_ptr<Inbox> inbox)
    : id_(id), max_deltas_(max_deltas), inbox_(std::move(inbox)) {}

std::optional<StreamEvent> StreamBuffer::Next() {
  std::optional<StreamEvent> event;
  bool made_room = false;
  {
    MutexLock lock(&mu_);
    if (events_.empty()) return std::nullopt;
    const bool was_full = num_deltas_ >= max_deltas_;
    num_deltas_ -= events_.front().deltas;
    event = std::move(events_.front().event);
    events_.pop_front();
    made_room = was_full && num_deltas_ < max_deltas_ && !has_ended_;
  }
  if (made_room) inbox_->ReaderMadeRoom(id_);
  return event;
}

bool StreamBuffer::done() const {
  MutexLock lock(&mu_);
  return has_ended_ && (events_.empty() || !status_.ok());
}

absl::Status StreamBuffer::status() const {
  MutexLock lock(&mu_);
  return status_;
}

void StreamBuffer::SetCallback(std::function<void()> callback) {
  bool has_news = false;
  {
    MutexLock lock(&mu_);
    callback_ = callback == nullptr
                    ? nullptr
                    : std::make_shared<const std::function<void()>>(
                          std::move(callback));
    if (callback_ == nullptr && t_calling_back != this) {
      while (is_in_callback_) callback_ended_.Wait(&mu_);
    }
    has_news = callback_ != nullptr && (has_ended_ || !events_.empty());
  }
  if (has_news) Notify();
}

void StreamBuffer::Cancel() {
  {
    MutexLock lock(&mu_);
    if (has_ended_) return;
  }
  inbox_->Cancel(id_);
}

void StreamBuffer::Push(StreamEvent event) {
  MutexLock lock(&mu_);
  if (has_ended_) return;
  auto* delta = std::get_if<DeltaEvent>(&event);
  if (delta == nullptr) {
    events_.push_back({std::move(event), 0});
    return;
  }
  ++num_deltas_;
  for (auto it = events_.rbegin(); it != events_.rend(); ++it) {
    auto* last = std::get_if<DeltaEvent>(&it->event);
    if (last == nullptr || last->candidate != delta->candidate) continue;
    Coalesce(std::move(*delta), last);
    ++it->deltas;
    return;
  }
  events_.push_back({std::move(event), 1});
}

void StreamBuffer::End(const absl::Status& status) {
  MutexLock lock(&mu_);
  if (has_ended_) return;
  has_ended_ = true;
  status_ = status;
}

void StreamBuffer::Notify() {
  mu_.Lock();
  must_call_again_ = true;
  if (is_in_callback_) {
    mu_.Unlock();
    return;
  }
  is_in_callback_ = true;
  const StreamBuffer* outer = std::exchange(t_calling_back, this);
  while (std::exchange(must_call_again_, false) && callback_ != nullptr) {
    const auto callback = callback_;
    mu_.Unlock();
    (*callback)();
    mu_.Lock();
  }
  t_calling_back = outer;
  is_in_callback_ = false;
  callback_ended_.SignalAll();
  mu_.Unlock();
}

bool StreamBuffer::is_full() const {
  MutexLock lock(&mu_);
  return num_deltas_ >= max_deltas_;
}

}  // namespace lorikeet
