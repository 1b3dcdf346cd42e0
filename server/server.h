// A Server is a Runtime with a way in: the whole of `lorikeet serve` but for
// signals.
//
// Thread-safe after Start.

#ifndef LORIKEET_SERVER_SERVER_H_
#define LORIKEET_SERVER_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/train_ops.h"
#include "model/base_verifier.h"
#include "server/frontend/adapter_service.h"
#include "server/frontend/admin_service.h"
#include "server/frontend/alias_monitor.h"
#include "server/frontend/generate_service.h"
#include "server/frontend/golden_gate.h"
#include "server/frontend/model_info.h"
#include "server/grpc/grpc_server.h"
#include "server/options.h"
#include "server/runtime.h"
#include "server/training/job_runner.h"
#include "server/training/training_service.h"

namespace lorikeet {

class Server {
 public:
  // Loads the model, registers --lora-modules, listens, becomes ready.
  // Errors: INVALID_ARGUMENT for options; of the model, of an adapter (naming
  // it), of the address.
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const ServerOptions& options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // "127.0.0.1:8001"
  std::string grpc_address() const;
  int grpc_port() const { return grpc_->port(); }
  Runtime& runtime() { return *runtime_; }
  const ModelInfo& model() const { return model_; }

  // The fault that broke the device, INTERNAL; nothing can be served after it.
  // Thread-safe.
  absl::Status device_fault() const;

  // Not ready any more, refuses new requests, lets running ones finish within
  // `timeout`, ends the rest with finish reason "abort", stops listening.
  void Shutdown(absl::Duration timeout);

 private:
  Server(const ServerOptions& options, std::unique_ptr<Runtime> runtime);
  absl::Status RegisterLoraModules();
  absl::Status StartTraining();
  absl::Status Listen();

  const ServerOptions options_;
  // Destroyed from below: the way in first.
  const std::unique_ptr<Runtime> runtime_;
  const ModelInfo model_;
  BaseVerifier verifier_;
  GoldenGate gate_;
  AliasMonitor monitor_;
  GenerateService generate_;
  AdapterService adapters_;
  AdminService admin_;
  std::unique_ptr<TrainOps> train_ops_;  // null: no jobs
  std::unique_ptr<JobRunner> jobs_;      // the same
  std::unique_ptr<TrainingService> training_;
  std::unique_ptr<GrpcServer> grpc_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_SERVER_H_
