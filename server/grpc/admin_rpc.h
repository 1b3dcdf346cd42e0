// The methods of lorikeet.v1.AdminService.

#ifndef LORIKEET_SERVER_GRPC_ADMIN_RPC_H_
#define LORIKEET_SERVER_GRPC_ADMIN_RPC_H_

#include <memory>

#include "base/background_queue.h"
#include "server/frontend/admin_service.h"

namespace grpc {
class Service;
}

namespace lorikeet {

// `small` runs the short calls, `slow` those that wait. All must outlive the
// service.
std::unique_ptr<grpc::Service> NewAdminRpc(AdminService& service,
                                           BackgroundQueue& small,
                                           BackgroundQueue& slow);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_ADMIN_RPC_H_
