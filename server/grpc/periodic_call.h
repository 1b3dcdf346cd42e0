// A PeriodicCall is a server stream that sends a message at each interval,
// until there is a last one, an error, or the caller has gone.
//
// Its own owner while the call lasts; thread-safe.

#ifndef LORIKEET_SERVER_GRPC_PERIODIC_CALL_H_
#define LORIKEET_SERVER_GRPC_PERIODIC_CALL_H_

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/grpc/convert.h"

namespace lorikeet {

class PeriodicCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                           public std::enable_shared_from_this<PeriodicCall> {
 public:
  struct Next {
    grpc::ByteBuffer message;
    bool is_last = false;
  };
  // `next` may be called from any thread, one call at a time.
  using Source = std::function<absl::StatusOr<Next>()>;

  // Begins; the result is what the method returns to gRPC.
  static grpc::ServerWriteReactor<grpc::ByteBuffer>* Start(
      const absl::StatusOr<absl::Duration>& interval, Source source);

  // Of a request's field: 1 s if it is absent.
  // Errors: INVALID_ARGUMENT naming the limits.
  template <typename Request>
  static absl::StatusOr<absl::Duration> IntervalOf(const Request& request) {
    if (!request.has_interval()) return absl::Seconds(1);
    return ToDuration("interval", request.interval(), absl::Milliseconds(100),
                      absl::Hours(1));
  }

  explicit PeriodicCall(Source source) : source_(std::move(source)) {}
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void WriteLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Source source_;
  std::shared_ptr<PeriodicCall> self_;
  Mutex mu_;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool is_last_ ABSL_GUARDED_BY(mu_) = false;
  absl::Duration interval_ ABSL_GUARDED_BY(mu_);
  grpc::ByteBuffer message_;  // of the write in flight
  grpc::Alarm alarm_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_PERIODIC_CALL_H_
