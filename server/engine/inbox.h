// An Inbox is how other threads reach the engine thread: new requests, what
// readers did, commands; and how they wait for it.
//
// The number of requests that wait to be scheduled is bounded. Shared by the
// engine and its streams, so that a stream may outlive the engine.
//
// Thread-safe.

#ifndef LORIKEET_SERVER_ENGINE_INBOX_H_
#define LORIKEET_SERVER_ENGINE_INBOX_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/scheduler/scheduler.h"

namespace lorikeet {

struct RequestState;

class Inbox {
 public:
  // What has come in since the last look.
  struct Mail {
    std::vector<std::unique_ptr<RequestState>> submitted;
    std::vector<RequestId> cancelled;
    std::vector<RequestId> drained;  // their readers made room
    std::vector<std::function<void()>> commands;
  };

  explicit Inbox(int64_t max_waiting_requests, bool held);
  ~Inbox();

  // ---- from other threads --------------------------------------------------

  // Errors: UNAVAILABLE / SERVER_DRAINING; RESOURCE_EXHAUSTED / QUEUE_FULL.
  absl::Status Submit(std::unique_ptr<RequestState> request);
  void Cancel(RequestId id);
  void ReaderMadeRoom(RequestId id);
  // Makes the engine thread look around.
  void Wake();
  // Runs `command` on the engine thread and waits for it.
  void Run(std::function<void()> command);
  void SetHeld(bool held);
  // Refuses new requests from now on.
  void StartDraining();
  // Waits until no request is left, for at most `timeout`; returns how many.
  int64_t WaitUntilEmpty(absl::Duration timeout);
  // Makes the engine thread end; commands and requests are refused.
  void Stop();
  int64_t num_waiting() const;  // requests that were never scheduled

  // ---- from the engine thread ----------------------------------------------

  // Moves everything that came in to `mail`, which is emptied first. Returns
  // false when the thread has to end.
  bool Take(Mail* mail);
  // Waits until there is something to take, or for `timeout`.
  void WaitForMail(absl::Duration timeout);
  bool is_held() const;
  // A request leaves the waiting ones; it may end later or at once.
  void CountStarted(bool is_extra);
  void CountEnded();

 private:
  mutable Mutex mu_;
  CondVar has_mail_;
  CondVar changed_;  // a request ended, a command was run
  const int64_t max_waiting_requests_;
  Mail mail_ ABSL_GUARDED_BY(mu_);
  bool was_woken_ ABSL_GUARDED_BY(mu_) = false;
  bool is_held_ ABSL_GUARDED_BY(mu_) = false;
  bool is_draining_ ABSL_GUARDED_BY(mu_) = false;
  bool is_stopping_ ABSL_GUARDED_BY(mu_) = false;
  int64_t num_waiting_ ABSL_GUARDED_BY(mu_) = 0;  // without extra ones
  int64_t num_extra_waiting_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t num_alive_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_INBOX_H_
