// What every channel of ours to a lorikeet server is made with.

#ifndef LORIKEET_LOADGEN_CHANNEL_ARGUMENTS_H_
#define LORIKEET_LOADGEN_CHANNEL_ARGUMENTS_H_

#include <grpcpp/support/channel_arguments.h>

#include <string>

namespace lorikeet {

// Arguments for a channel to `server`, HOST:PORT. A proxy of the environment
// is not asked for this machine's own loopback, which it cannot reach.
grpc::ChannelArguments ChannelArgumentsFor(const std::string& server);

}  // namespace lorikeet

#endif  // LORIKEET_LOADGEN_CHANNEL_ARGUMENTS_H_
