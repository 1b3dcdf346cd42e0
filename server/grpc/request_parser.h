// Reads a request message from its bytes and says what is wrong with them.
//
// Protobuf refuses a string that is no UTF-8 without naming the field, and gRPC
// would answer UNIMPLEMENTED; here it is INVALID_ARGUMENT with the field.
// Pure.

#ifndef LORIKEET_SERVER_GRPC_REQUEST_PARSER_H_
#define LORIKEET_SERVER_GRPC_REQUEST_PARSER_H_

#include <google/protobuf/message.h>

#include <string>

#include "absl/status/status.h"

namespace lorikeet {

// Errors: INVALID_ARGUMENT / INVALID_UTF8 naming the field, or
// MALFORMED_MESSAGE naming the message type.
absl::Status ParseMessage(const std::string& bytes,
                          google::protobuf::Message* message);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_REQUEST_PARSER_H_
