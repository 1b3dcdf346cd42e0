// The methods of lorikeet.v1.AdapterService.

#ifndef LORIKEET_SERVER_GRPC_ADAPTER_RPC_H_
#define LORIKEET_SERVER_GRPC_ADAPTER_RPC_H_

#include <memory>

#include "base/background_queue.h"
#include "server/frontend/adapter_service.h"
#include "server/frontend/model_info.h"

namespace grpc {
class Service;
}

namespace lorikeet {

struct AdapterQueues {
  BackgroundQueue& small;   // look-ups and small writes
  BackgroundQueue& slow;    // what reads files or waits for requests
  BackgroundQueue& upload;  // one message of an upload
};

// All must outlive the service.
std::unique_ptr<grpc::Service> NewAdapterRpc(AdapterService& service,
                                             const ModelInfo& model,
                                             const AdapterQueues& queues);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_ADAPTER_RPC_H_
