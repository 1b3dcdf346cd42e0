#include "server/engine/inbox.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/reason.h"
#include "server/engine/request_state.h"
#include "server/engine/retry_after.h"

namespace lorikeet {
namespace {

// Long enough for a few requests to end, short for a person.
constexpr absl::Duration kRetryAfter = absl::Seconds(1);

}  // namespace

Inbox::Inbox(int64_t max_waiting_requests, bool held)
    : max_waiting_requests_(max_waiting_requests), is_held_(held) {}

Inbox::~Inbox() = default;

absl::Status Inbox::Submit(std::unique_ptr<RequestState> request) {
  MutexLock lock(&mu_);
  if (is_draining_ || is_stopping_) {
    return WithReason(absl::UnavailableError("the server is draining"),
                      "SERVER_DRAINING");
  }
  // Extra ones stay out of the way long before the others' places are taken,
  // and take none of them.
  const bool is_extra = request->request.is_extra;
  const int64_t places = max_waiting_requests_ / (is_extra ? 2 : 1);
  const int64_t waiting = num_waiting_ + (is_extra ? num_extra_waiting_ : 0);
  if (waiting >= places) {
    return WithRetryAfter(
        WithReason(absl::ResourceExhaustedError(
                       absl::StrCat(waiting, " requests wait already, limit ",
                                    "max_waiting_requests ", places)),
                   "QUEUE_FULL"),
        kRetryAfter);
  }
  ++(is_extra ? num_extra_waiting_ : num_waiting_);
  ++num_alive_;
  mail_.submitted.push_back(std::move(request));
  has_mail_.Signal();
  return absl::OkStatus();
}

void Inbox::Cancel(RequestId id) {
  MutexLock lock(&mu_);
  mail_.cancelled.push_back(id);
  has_mail_.Signal();
}

void Inbox::ReaderMadeRoom(RequestId id) {
  MutexLock lock(&mu_);
  mail_.drained.push_back(id);
  has_mail_.Signal();
}

void Inbox::Wake() {
  MutexLock lock(&mu_);
  was_woken_ = true;
  has_mail_.Signal();
}

void Inbox::Run(std::function<void()> command) {
  MutexLock lock(&mu_);
  if (is_stopping_) return;
  bool done = false;
  mail_.commands.push_back([this, &done, command = std::move(command)] {
    command();
    MutexLock done_lock(&mu_);
    done = true;
    changed_.SignalAll();
  });
  has_mail_.Signal();
  while (!done) changed_.Wait(&mu_);
}

void Inbox::SetHeld(bool held) {
  MutexLock lock(&mu_);
  is_held_ = held;
  was_woken_ = true;
  has_mail_.Signal();
}

void Inbox::StartDraining() {
  MutexLock lock(&mu_);
  is_draining_ = true;
}

int64_t Inbox::WaitUntilEmpty(absl::Duration timeout) {
  MutexLock lock(&mu_);
  const bool for_ever = timeout == absl::InfiniteDuration();
  while (num_alive_ > 0) {
    if (for_ever) {
      changed_.Wait(&mu_);
      continue;
    }
    const absl::Duration begin = SystemClock().Now();
    if (timeout <= absl::ZeroDuration() || changed_.WaitFor(&mu_, timeout)) {
      break;
    }
    timeout -= SystemClock().Now() - begin;
  }
  return num_alive_;
}

void Inbox::Stop() {
  MutexLock lock(&mu_);
  is_stopping_ = true;
  has_mail_.Signal();
}

int64_t Inbox::num_waiting() const {
  MutexLock lock(&mu_);
  return num_waiting_ + num_extra_waiting_;
}

bool Inbox::Take(Mail* mail) {
  mail->submitted.clear();
  mail->cancelled.clear();
  mail->drained.clear();
  mail->commands.clear();
  MutexLock lock(&mu_);
  std::swap(*mail, mail_);
  was_woken_ = false;
  return !is_stopping_;
}

void Inbox::WaitForMail(absl::Duration timeout) {
  MutexLock lock(&mu_);
  while (!was_woken_ && !is_stopping_ && mail_.submitted.empty() &&
         mail_.cancelled.empty() && mail_.drained.empty() &&
         mail_.commands.empty()) {
    if (has_mail_.WaitFor(&mu_, timeout)) return;
  }
}

bool Inbox::is_held() const {
  MutexLock lock(&mu_);
  return is_held_;
}

void Inbox::CountStarted(bool is_extra) {
  MutexLock lock(&mu_);
  --(is_extra ? num_extra_waiting_ : num_waiting_);
}

void Inbox::CountEnded() {
  MutexLock lock(&mu_);
  --num_alive_;
  changed_.SignalAll();
}

}  // namespace lorikeet
