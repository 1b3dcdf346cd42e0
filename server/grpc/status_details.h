// Turns an absl::Status with what the frontend attached to it (reason, field,
// resource, metadata) into the text form of google.rpc.Status, which travels as
// grpc-status-details-bin. docs/errors.md is the table for people.
//
// Pure.

#ifndef LORIKEET_SERVER_GRPC_STATUS_DETAILS_H_
#define LORIKEET_SERVER_GRPC_STATUS_DETAILS_H_

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"

namespace lorikeet {

// Domain of every ErrorInfo.
inline constexpr char kErrorDomain[] = "lorikeet";

// Returns `status` as gRPC sends it. Details: ErrorInfo always; RetryInfo where
// the same call may succeed later; BadRequest where a field is known;
// ResourceInfo where a resource is.
grpc::Status ToGrpcStatus(const absl::Status& status);

// Returns the serialized google.rpc.Status.
std::string StatusDetails(const absl::Status& status);

// The reason that is sent: of `status`, else the name of its code.
std::string SentReason(const absl::Status& status);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_STATUS_DETAILS_H_
