// The reactor of UploadAdapter: a first message that says what to register,
// then chunks of the two files; registration at the end of the stream.
//
// Each message is worked on by a queue, since it writes to disk; the next one
// is read after that. A call that ends early leaves nothing behind.
//
// The reactor deletes itself when gRPC is done with it.

#ifndef LORIKEET_SERVER_GRPC_UPLOAD_REACTOR_H_
#define LORIKEET_SERVER_GRPC_UPLOAD_REACTOR_H_

#include <grpcpp/grpcpp.h>

#include "base/background_queue.h"
#include "server/frontend/adapter_service.h"
#include "server/frontend/model_info.h"

namespace lorikeet {

// Starts one call; all must outlive it.
grpc::ServerReadReactor<grpc::ByteBuffer>* StartUpload(
    grpc::CallbackServerContext* context, grpc::ByteBuffer* out,
    AdapterService& service, const ModelInfo& model, BackgroundQueue& queue);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_UPLOAD_REACTOR_H_
