#include "server/server.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"
#include "kernels/device/open_device.h"
#include "server/model_info.h"

namespace lorikeet {
namespace {

// After an abort the last events of every stream must still be sent.
constexpr absl::Duration kFlushTimeout = absl::Seconds(2);

std::string ModelId(const ServerOptions& options) {
  return options.served_model_name.empty() ? DefaultModelName(options.model_dir)
                                           : options.served_model_name;
}

// An IPv6 address needs brackets in front of a port.
std::string AddressOf(const std::string& host, int port) {
  const bool bare_ipv6 =
      absl::StrContains(host, ":") && !absl::StartsWith(host, "[");
  return bare_ipv6 ? absl::StrCat("[", host, "]:", port)
                   : absl::StrCat(host, ":", port);
}

}  // namespace

Server::Server(const ServerOptions& options, std::unique_ptr<Runtime> runtime)
    : options_(options),
      runtime_(std::move(runtime)),
      model_(MakeModelInfo(*runtime_, ModelId(options))),
      verifier_(*runtime_->model, runtime_->clock,
                absl::Seconds(options.verify_base_interval_seconds)),
      gate_(model_, runtime_->tokenizer.get(), *runtime_->engine,
            runtime_->clock),
      monitor_(*runtime_->adapters, *runtime_->engine, runtime_->clock),
      generate_(model_, runtime_->tokenizer.get(), *runtime_->adapters,
                *runtime_->engine, &monitor_),
      adapters_(model_, *runtime_->adapters, *runtime_->engine, gate_, monitor_,
                runtime_->fs, runtime_->clock,
                absl::Seconds(options.shutdown_timeout_seconds)),
      admin_(model_, *runtime_->adapters, *runtime_->engine, verifier_,
             runtime_->clock, absl::Seconds(options.shutdown_timeout_seconds)) {
}

Server::~Server() = default;

absl::StatusOr<std::unique_ptr<Server>> Server::Start(
    const ServerOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  ServerOptions resolved = options;
  if (resolved.state_dir.empty()) resolved.state_dir = DefaultStateDir();
  ASSIGN_OR_RETURN(std::unique_ptr<Runtime> runtime, Runtime::Create(resolved));
  std::unique_ptr<Server> server(new Server(resolved, std::move(runtime)));
  RETURN_IF_ERROR(server->RegisterLoraModules());
  RETURN_IF_ERROR(server->StartTraining());
  RETURN_IF_ERROR(server->Listen());
  return server;
}

absl::Status Server::RegisterLoraModules() {
  for (const std::string& text : options_.lora_modules) {
    ASSIGN_OR_RETURN(const auto module,
                     SplitNameAndPath("--lora-modules", text));
    const auto& [name, path] = module;
    if (name == model_.id) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--lora-modules ", Quote(name), " is the base model's name"));
    }
    RETURN_IF_ERROR(Annotate(
        RegisterFromCommandLine(*runtime_->adapters, &gate_, name, path),
        absl::StrCat("--lora-modules ", Quote(name), " from ", Quote(path))));
  }
  return absl::OkStatus();
}

absl::Status Server::StartTraining() {
  absl::Status why_not;
  if (options_.train_share == 0) {
    why_not = WithReason(absl::FailedPreconditionError(
                             "the server does not train: --train-share is 0"),
                         "TRAINING_OFF");
  } else {
    // Jobs give the bytes of `lorikeet train`, however the server computes.
    DeviceOptions device = options_.Device();
    device.compute_dtype = DType::kF32;
    ASSIGN_OR_RETURN(train_ops_,
                     OpenTrainOps(device, *runtime_->ops, *runtime_->pool));
    const TrainingSubject subject{runtime_->fs, *runtime_->model,
                                  runtime_->tokenizer.get(), *runtime_->ops,
                                  *train_ops_};
    JobRunner::Options options;
    options.dir = JoinPath(options_.state_dir, "jobs");
    options.share = options_.train_share;
    ASSIGN_OR_RETURN(
        jobs_,
        JobRunner::Start(subject, *runtime_->engine, runtime_->clock, options,
                         NewJobPublisher(*runtime_->adapters, gate_)));
  }
  training_ = std::make_unique<TrainingService>(
      model_, *runtime_->adapters, runtime_->fs, options_.training_roots,
      jobs_.get(), why_not);
  return absl::OkStatus();
}

absl::Status Server::Listen() {
  GrpcServerOptions grpc;
  grpc.address = AddressOf(options_.host, options_.grpc_port);
  ASSIGN_OR_RETURN(grpc_, GrpcServer::Start(grpc, model_, generate_, adapters_,
                                            admin_, *training_));
  admin_.SetDrainCallback([this] { grpc_->SetReady(false); });
  grpc_->SetReady(true);
  Log(LogLevel::kInfo, "ready",
      {{"grpc", grpc_address()}, {"model", model_.id}});
  return absl::OkStatus();
}

std::string Server::grpc_address() const {
  return AddressOf(options_.host, grpc_->port());
}

absl::Status Server::device_fault() const { return runtime_->ops->status(); }

void Server::Shutdown(absl::Duration timeout) {
  Log(LogLevel::kInfo, "draining",
      {{"timeout", absl::FormatDuration(timeout)}});
  const int64_t remaining = admin_.Drain(timeout);
  if (remaining > 0) {
    Log(LogLevel::kWarning, "requests ended by the shutdown",
        {{"count", absl::StrCat(remaining)}});
    admin_.AbortAll();
  }
  grpc_->Shutdown(kFlushTimeout);
  Log(LogLevel::kInfo, "stopped");
}

}  // namespace lorikeet
