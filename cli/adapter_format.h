// Names and pictures of adapters, shared by the `adapter` subcommands.
//
// Pure.

#ifndef LORIKEET_CLI_ADAPTER_FORMAT_H_
#define LORIKEET_CLI_ADAPTER_FORMAT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lorikeet/v1/adapters.pb.h"

namespace google::protobuf {
class Message;
}

namespace lorikeet {

// Returns "tenants/`tenant`"; the tenant is what stands before a slash in
// `name`, or "default".
std::string ParentOf(absl::string_view name);
// Returns `name` without "tenant/".
std::string IdOf(absl::string_view name);
// Returns "tenants/`tenant`/`collection`/`id`" for "[`tenant`/]`id`".
std::string ResourceName(absl::string_view name, absl::string_view collection);
// The way back: "tenants/default/adapters/x" is "x", of another tenant "t/x".
// What has no such form comes back as it is.
std::string ShortName(absl::string_view resource_name);

// Returns "active", "device", ...
std::string StateText(v1::Adapter::State state);
std::string TierText(v1::Tier tier);

// Returns one line: "reverse@1  active  device  rank 8  116 KiB  1a2b3c4d5e6f".
std::string AdapterLine(const v1::Adapter& adapter);
// Returns a table of one line per adapter.
std::string AdapterTable(const v1::ListAdaptersResponse& list);
// Returns everything about one adapter and its versions, on many lines.
std::string AdapterDetails(const v1::Adapter& adapter,
                           const v1::ListAdapterVersionsResponse& versions);

// Returns the message in protobuf's JSON mapping, with the names of the .proto
// files; with a line end.
std::string MessageToJson(const google::protobuf::Message& message,
                          bool one_line = false);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_ADAPTER_FORMAT_H_
