#include "loadgen/channel_arguments.h"

#include "absl/strings/match.h"

namespace lorikeet {

grpc::ChannelArguments ChannelArgumentsFor(const std::string& server) {
  grpc::ChannelArguments args;
  if (absl::StartsWith(server, "127.") ||
      absl::StartsWith(server, "localhost:") ||
      absl::StartsWith(server, "[::1]:")) {
    args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  }
  return args;
}

}  // namespace lorikeet
