// The methods of lorikeet.v1.InferenceService.

#ifndef LORIKEET_SERVER_GRPC_INFERENCE_RPC_H_
#define LORIKEET_SERVER_GRPC_INFERENCE_RPC_H_

#include <memory>

#include "base/background_queue.h"
#include "server/frontend/generate_service.h"

namespace grpc {
class Service;
}

namespace lorikeet {

struct InferenceQueues {
  BackgroundQueue& admit;  // tokenizing of long prompts
  BackgroundQueue& pump;   // events to messages
  BackgroundQueue& small;  // the small calls
};

// All must outlive the service.
std::unique_ptr<grpc::Service> NewInferenceRpc(GenerateService& service,
                                               const InferenceQueues& queues);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_INFERENCE_RPC_H_
