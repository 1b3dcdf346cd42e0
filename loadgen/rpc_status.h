// From gRPC's status to ours: the code, the message, and out of its google.rpc
// details the reason (base/reason.h) and the time to wait before a retry.
//
// Pure.

#ifndef LORIKEET_LOADGEN_RPC_STATUS_H_
#define LORIKEET_LOADGEN_RPC_STATUS_H_

#include <string>

#include "absl/status/status.h"

namespace grpc {
class Status;
}

namespace lorikeet {

// `server` is the address, for the message if nobody answers there.
absl::Status FromRpcStatus(const grpc::Status& status,
                           const std::string& server);

}  // namespace lorikeet

#endif  // LORIKEET_LOADGEN_RPC_STATUS_H_
