// Signals are blocked in every thread and taken by one that waits for them, so
// that nothing runs in a handler.

#include "server/serve.h"

#include <signal.h>
#include <time.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <utility>

#include "base/background_queue.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"
#include "server/server.h"

namespace lorikeet {
namespace {

// How often the waiting thread looks whether it shall end itself.
constexpr long kLookPeriodNs = 100'000'000;
// Besides --shutdown-timeout: gRPC can hang in its own shutdown.
constexpr absl::Duration kShutdownMargin = absl::Seconds(10);

// The first signal ends a wait; the second, or one before Arm, the process.
class SignalWaiter {
 public:
  SignalWaiter() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    // A client that is gone is an error of a write, not a signal.
    signal(SIGPIPE, SIG_IGN);
    thread_ = std::make_unique<BackgroundThread>("signals", [this] { Loop(); });
  }
  ~SignalWaiter() {
    ending_ = true;
    thread_.reset();
  }

  // From now on the first signal is for Wait; so is the first time that
  // `is_over`, which is asked from another thread, says yes.
  void Arm(std::function<bool()> is_over) {
    {
      MutexLock lock(&mu_);
      is_over_ = std::move(is_over);
    }
    armed_ = true;
  }
  void Wait() {
    MutexLock lock(&mu_);
    while (!signalled_) changed_.Wait(&mu_);
  }
  // The process ends in `timeout` whatever happens.
  void Limit(absl::Duration timeout) {
    looks_left_ = absl::ToInt64Nanoseconds(timeout) / kLookPeriodNs + 1;
  }

 private:
  void Loop() {
    while (!ending_) {
      const timespec period = {0, kLookPeriodNs};
      const int signal_number = sigtimedwait(&set_, nullptr, &period);
      if (signal_number > 0) Take(signal_number);
      if (armed_) LookIfOver();
      if (looks_left_ > 0 && --looks_left_ == 0) {
        Log(LogLevel::kError, "shutdown takes too long, giving up");
        std::_Exit(0);
      }
    }
  }

  void LookIfOver() {
    MutexLock lock(&mu_);
    if (signalled_ || !is_over_()) return;
    signalled_ = true;
    changed_.SignalAll();
  }

  void Take(int signal_number) {
    if (!armed_) std::_Exit(0);  // nothing runs yet
    MutexLock lock(&mu_);
    if (signalled_) std::_Exit(128 + signal_number);
    signalled_ = true;
    changed_.SignalAll();
  }

  sigset_t set_;
  std::atomic<bool> ending_ = false;
  std::atomic<bool> armed_ = false;
  std::atomic<int64_t> looks_left_ = 0;  // 0 = no limit
  Mutex mu_;
  CondVar changed_;
  bool signalled_ ABSL_GUARDED_BY(mu_) = false;
  std::function<bool()> is_over_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<BackgroundThread> thread_;
};

}  // namespace

absl::Status Serve(const ServerOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  SignalWaiter signals;
  ASSIGN_OR_RETURN(std::unique_ptr<Server> server, Server::Start(options));
  signals.Arm([&server] { return !server->device_fault().ok(); });
  std::printf("ready grpc=%s\n", server->grpc_address().c_str());
  std::fflush(stdout);
  signals.Wait();
  // A broken device ends the process: its supervisor starts another.
  const absl::Status fault = server->device_fault();
  const absl::Duration timeout =
      fault.ok() ? absl::Seconds(options.shutdown_timeout_seconds)
                 : absl::ZeroDuration();
  signals.Limit(timeout + kShutdownMargin);
  server->Shutdown(timeout);
  return fault;
}

}  // namespace lorikeet
