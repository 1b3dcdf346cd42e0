// The process of `lorikeet serve`: a Server and the signals that end it.

#ifndef LORIKEET_SERVER_SERVE_H_
#define LORIKEET_SERVER_SERVE_H_

#include "absl/status/status.h"
#include "server/options.h"

namespace lorikeet {

// Starts the server, prints one line "ready grpc=HOST:PORT" on stdout when it
// can serve, and returns after SIGTERM or SIGINT: then it is not ready any
// more, refuses new requests and finishes running ones within
// --shutdown-timeout. A second signal, or one while the model is being loaded,
// ends the process at once.
//
// REQUIRES: called once, before the process has other threads.
// Errors: as Server::Start.
absl::Status Serve(const ServerOptions& options);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_SERVE_H_
