// What every method does with its call: bytes to message and back, the
// request's id, the deadline; and unary methods that run on a queue.
//
// Methods are registered raw (bytes in, bytes out), so that a request that
// protobuf refuses is answered by us; see request_parser.h.

#ifndef LORIKEET_SERVER_GRPC_CALL_H_
#define LORIKEET_SERVER_GRPC_CALL_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/background_queue.h"
#include "google/protobuf/message.h"
#include "server/frontend/adapter_service.h"
#include "server/grpc/request_parser.h"
#include "server/grpc/status_details.h"

namespace lorikeet {

// Longest x-request-id; longer ones are refused.
inline constexpr size_t kMaxRequestIdBytes = 128;

// Errors: INVALID_ARGUMENT, see ParseMessage.
absl::Status ReadRequest(const grpc::ByteBuffer& in,
                         google::protobuf::Message* message);
grpc::ByteBuffer ToByteBuffer(const google::protobuf::Message& message);

// Returns the id of a call: `given` by the message, else x-request-id of the
// caller's metadata if it is a good one, else a new one; and sends it back in
// the initial metadata. Call before anything is sent.
// Errors: INVALID_ARGUMENT if `given` is no printable ASCII or too long.
absl::StatusOr<std::string> SetRequestId(grpc::CallbackServerContext& context,
                                         const std::string& given = "");

// Time left and cancellation. `context` must stay alive: it does until the
// reactor has finished.
CallLimits LimitsOf(const grpc::CallbackServerContext& context);

absl::Status QueueFull();

// Runs `method` on `queue` and finishes the call with its result.
// A full queue is RESOURCE_EXHAUSTED / ADMIN_QUEUE_FULL.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* RunUnary(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
    grpc::ByteBuffer* out, BackgroundQueue& queue,
    std::function<absl::StatusOr<Response>(const Request&, const CallLimits&)>
        method) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  auto request = std::make_shared<Request>();
  absl::Status status = SetRequestId(*context).status();
  if (status.ok()) status = ReadRequest(*in, request.get());
  if (!status.ok()) {
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }
  const bool added = queue.TryAdd([=, method = std::move(method)] {
    if (context->IsCancelled()) {  // nobody waits for it any more
      reactor->Finish(grpc::Status::CANCELLED);
      return;
    }
    const absl::StatusOr<Response> response =
        method(*request, LimitsOf(*context));
    if (response.ok()) *out = ToByteBuffer(*response);
    reactor->Finish(ToGrpcStatus(response.status()));
  });
  if (!added) reactor->Finish(ToGrpcStatus(QueueFull()));
  return reactor;
}

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_CALL_H_
