// Merged variants and the state of the base, as messages.
//
// Pure.

#ifndef LORIKEET_SERVER_GRPC_CONVERT_MERGES_H_
#define LORIKEET_SERVER_GRPC_CONVERT_MERGES_H_

#include <optional>

#include "absl/status/statusor.h"
#include "lorikeet/v1/admin.pb.h"
#include "lorikeet/v1/inference.pb.h"
#include "server/frontend/admin_service.h"

namespace lorikeet {

// Nullopt: not specified. Errors: INVALID_ARGUMENT naming the number.
absl::StatusOr<std::optional<Variant>> ToVariant(v1::Variant in);
v1::Variant ToProto(std::optional<Variant> in);

void ToProto(const MergeState& in, v1::MergeState* out);
void ToProto(const BaseVerifier::Report& in, v1::VerifyBaseResponse* out);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_CONVERT_MERGES_H_
