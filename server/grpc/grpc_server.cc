#include "server/grpc/grpc_server.h"

#include <google/protobuf/stubs/logging.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/service_type.h>

#include <atomic>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/background_queue.h"
#include "base/log.h"
#include "base/reason.h"
#include "base/text.h"
#include "server/grpc/adapter_rpc.h"
#include "server/grpc/admin_rpc.h"
#include "server/grpc/inference_rpc.h"
#include "server/grpc/training_rpc.h"

namespace lorikeet {
namespace {

// The control plane's share of the machine is small: it waits for disks.
constexpr int kSmallThreads = 2;
constexpr int kSlowThreads = 4;
constexpr int kUploadThreads = 2;
constexpr int kAdmitThreads = 1;
// Turning events into messages is a few microseconds each.
constexpr int kPumpThreads = 2;

constexpr const char* kReadyNames[] = {"",
                                       "readiness",
                                       "lorikeet.v1.InferenceService",
                                       "lorikeet.v1.AdapterService",
                                       "lorikeet.v1.AdminService",
                                       "lorikeet.v1.TrainingService"};

// Protobuf prints to stderr whatever a caller sends that is no UTF-8; the
// caller is told, the log need not fill.
void LogProtobuf(google::protobuf::LogLevel, const char*, int,
                 const std::string& message) {
  Log(LogLevel::kDebug, "protobuf", {{"message", Escape(message)}});
}

int Milliseconds(absl::Duration d) {
  return static_cast<int>(absl::ToInt64Milliseconds(d));
}

void SetLimits(const GrpcServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.SetMaxSendMessageSize(options.max_message_bytes);
  // A compressed message may be a bomb; nobody needs it here.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  const std::pair<const char*, int> arguments[] = {
      // A second server on the same port is a mistake, not a share of it.
      {GRPC_ARG_ALLOW_REUSEPORT, 0},
      {GRPC_ARG_MAX_METADATA_SIZE, options.max_metadata_bytes},
      {GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams},
      {GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_time)},
      {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive_timeout)},
      {GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1},
      {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
       Milliseconds(options.min_ping_interval)},
      {GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
       Milliseconds(options.handshake_timeout)},
      {GRPC_ARG_MAX_CONNECTION_IDLE_MS,
       Milliseconds(options.max_connection_idle)},
  };
  for (const auto& [name, value] : arguments) {
    builder.AddChannelArgument(name, value);
  }
}

class GrpcServerImpl final : public GrpcServer {
 public:
  GrpcServerImpl(const GrpcServerOptions& options, const ModelInfo& model,
                 GenerateService& generate, AdapterService& adapters,
                 AdminService& admin, TrainingService& training)
      : small_("grpc-small", kSmallThreads, options.max_waiting_small),
        slow_("grpc-slow", kSlowThreads, options.max_waiting_slow),
        upload_("grpc-upload", kUploadThreads, options.max_waiting_uploads),
        admit_("grpc-admit", kAdmitThreads, options.max_waiting_long_prompts),
        // Bounded by the number of calls: each has at most one entry.
        pump_("grpc-pump", kPumpThreads, std::numeric_limits<size_t>::max()),
        inference_rpc_(NewInferenceRpc(generate, {admit_, pump_, small_})),
        adapter_rpc_(NewAdapterRpc(adapters, model, {small_, slow_, upload_})),
        admin_rpc_(NewAdminRpc(admin, small_, slow_)),
        training_rpc_(NewTrainingRpc(training, small_, slow_)) {}

  ~GrpcServerImpl() override { Shutdown(absl::ZeroDuration()); }

  absl::Status Listen(const GrpcServerOptions& options) {
    google::protobuf::SetLogHandler(&LogProtobuf);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    SetLimits(options, builder);
    int port = 0;
    builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(inference_rpc_.get());
    builder.RegisterService(adapter_rpc_.get());
    builder.RegisterService(admin_rpc_.get());
    builder.RegisterService(training_rpc_.get());
    server_ = builder.BuildAndStart();
    const bool is_unix = options.address.rfind("unix:", 0) == 0;
    if (server_ == nullptr || port <= 0) {
      return WithReason(
          absl::UnavailableError(absl::StrCat(
              "cannot listen on ", Quote(options.address),
              ": is the address this machine's and the port free?")),
          "CANNOT_LISTEN");
    }
    port_ = is_unix ? 0 : port;
    SetReady(false);
    server_->GetHealthCheckService()->SetServingStatus("liveness", true);
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  void SetReady(bool ready) override {
    for (const char* const name : kReadyNames) {
      server_->GetHealthCheckService()->SetServingStatus(name, ready);
    }
  }

  void Shutdown(absl::Duration timeout) override {
    if (server_ == nullptr || down_.exchange(true)) return;
    server_->Shutdown(absl::ToChronoTime(absl::Now() + timeout));
  }

 private:
  // Destroyed from below: first the server, then what its calls use.
  BackgroundQueue small_;
  BackgroundQueue slow_;
  BackgroundQueue upload_;
  BackgroundQueue admit_;
  BackgroundQueue pump_;
  const std::unique_ptr<grpc::Service> inference_rpc_;
  const std::unique_ptr<grpc::Service> adapter_rpc_;
  const std::unique_ptr<grpc::Service> admin_rpc_;
  const std::unique_ptr<grpc::Service> training_rpc_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  std::atomic<bool> down_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(
    const GrpcServerOptions& options, const ModelInfo& model,
    GenerateService& generate, AdapterService& adapters, AdminService& admin,
    TrainingService& training) {
  auto server = std::make_unique<GrpcServerImpl>(options, model, generate,
                                                 adapters, admin, training);
  if (const absl::Status status = server->Listen(options); !status.ok()) {
    return status;
  }
  return std::unique_ptr<GrpcServer>(std::move(server));
}

}  // namespace lorikeet
