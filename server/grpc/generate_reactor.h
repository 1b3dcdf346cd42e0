// The reactors of Generate and GenerateUnary: each drives one call from the
// engine's TokenStream.
//
// The stream's callback only puts the call on a queue, once, whatever happens
// meanwhile; the queue's threads convert and write. One write is in flight per
// call. A reader that does not read leaves its write in flight: the stream then
// fills up and the engine deals with it. A call that ends for whatever reason
// (cancel, deadline, error) cancels its stream.
//
// Reactors delete themselves when gRPC is done with them.

#ifndef LORIKEET_SERVER_GRPC_GENERATE_REACTOR_H_
#define LORIKEET_SERVER_GRPC_GENERATE_REACTOR_H_

#include <grpcpp/grpcpp.h>

#include "base/background_queue.h"
#include "server/frontend/generate_service.h"

namespace lorikeet {

struct GenerateQueues {
  BackgroundQueue& admit;  // tokenizing of long prompts
  BackgroundQueue& pump;   // events to messages; at most one entry a call
};

// Start one call; all must outlive it.
grpc::ServerWriteReactor<grpc::ByteBuffer>* StartGenerate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
    GenerateService& service, const GenerateQueues& queues);
grpc::ServerUnaryReactor* StartGenerateUnary(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
    grpc::ByteBuffer* out, GenerateService& service,
    const GenerateQueues& queues);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_GENERATE_REACTOR_H_
