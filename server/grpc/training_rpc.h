// The methods of lorikeet.v1.TrainingService.

#ifndef LORIKEET_SERVER_GRPC_TRAINING_RPC_H_
#define LORIKEET_SERVER_GRPC_TRAINING_RPC_H_

#include <memory>

#include "base/background_queue.h"
#include "server/training/training_service.h"

namespace grpc {
class Service;
}

namespace lorikeet {

// `small` runs the short calls, `slow` those that read data. All must outlive
// the service.
std::unique_ptr<grpc::Service> NewTrainingRpc(TrainingService& service,
                                              BackgroundQueue& small,
                                              BackgroundQueue& slow);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_TRAINING_RPC_H_
