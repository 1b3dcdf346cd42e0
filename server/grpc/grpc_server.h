// A GrpcServer is the gRPC way in: lorikeet.v1's services, health and
// reflection, on one port.
//
// Health (grpc.health.v1): "liveness" is SERVING as long as the server is up;
// "readiness", "" and the services become SERVING when SetReady says so.
//
// Thread-safe.

#ifndef LORIKEET_SERVER_GRPC_GRPC_SERVER_H_
#define LORIKEET_SERVER_GRPC_GRPC_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/frontend/adapter_service.h"
#include "server/frontend/admin_service.h"
#include "server/frontend/generate_service.h"
#include "server/frontend/model_info.h"
#include "server/training/training_service.h"

namespace lorikeet {

struct GrpcServerOptions {
  // "host:port" with port 0 = any free one, or "unix:PATH".
  std::string address = "127.0.0.1:0";
  // Of one message either way: a prompt of a million ids, one upload chunk, a
  // delta with logprobs.
  int max_message_bytes = 16 << 20;
  int max_metadata_bytes = 16 << 10;
  // Calls of one connection at once; more wait at the client.
  int max_concurrent_streams = 256;
  // A connection that does not answer a ping is closed, so that its requests
  // end; a client that pings more often than it may is told to go away.
  absl::Duration keepalive_time = absl::Seconds(60);
  absl::Duration keepalive_timeout = absl::Seconds(20);
  absl::Duration min_ping_interval = absl::Seconds(10);
  absl::Duration handshake_timeout = absl::Seconds(5);
  absl::Duration max_connection_idle = absl::Minutes(30);
  // Calls that may wait for the threads of the control plane.
  size_t max_waiting_small = 256;
  size_t max_waiting_slow = 64;
  size_t max_waiting_uploads = 64;
  size_t max_waiting_long_prompts = 256;
};

class GrpcServer {
 public:
  // Starts to listen; not ready yet. All must outlive the server.
  // Errors: UNAVAILABLE naming the address if it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(
      const GrpcServerOptions& options, const ModelInfo& model,
      GenerateService& generate, AdapterService& adapters, AdminService& admin,
      TrainingService& training);
  virtual ~GrpcServer() = default;  // shuts down, cancelling what runs

  // The port listened on; 0 for a Unix socket.
  virtual int port() const = 0;
  virtual void SetReady(bool ready) = 0;
  // Refuses new calls; returns when none is left, cancelling after `timeout`.
  virtual void Shutdown(absl::Duration timeout) = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_GRPC_SERVER_H_
