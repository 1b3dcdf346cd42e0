// Aliases and the audit trail, between messages and the types of the frontend.
//
// Pure.

#ifndef LORIKEET_SERVER_GRPC_CONVERT_ALIASES_H_
#define LORIKEET_SERVER_GRPC_CONVERT_ALIASES_H_

#include <string>

#include "absl/status/statusor.h"
#include "lorikeet/v1/adapters.pb.h"
#include "server/frontend/adapter_service.h"

namespace lorikeet {

// `actor` is who calls. Errors: INVALID_ARGUMENT naming the field.
absl::StatusOr<AliasInput> ToAliasInput(const v1::Alias& in,
                                        const std::string& actor);
void ToProto(const AliasView& in, v1::Alias* out);
void ToProto(const AuditEntry& in, v1::AuditEntry* out);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_CONVERT_ALIASES_H_
