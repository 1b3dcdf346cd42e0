#include "cli/rpc_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>

#include "base/digest.h"
#include "base/file_system.h"
#include "base/status.h"
#include "loadgen/channel_arguments.h"
#include "loadgen/rpc_status.h"
#include "lorikeet/v1/adapters.grpc.pb.h"
#include "lorikeet/v1/admin.grpc.pb.h"
#include "lorikeet/v1/inference.grpc.pb.h"
#include "lorikeet/v1/training.grpc.pb.h"

namespace lorikeet {
namespace {

// Answers with prompt log-probabilities of long prompts outgrow gRPC's 4 MiB.
constexpr int kMaxReceiveBytes = 256 << 20;
// The upload protocol's limit on one chunk.
constexpr size_t kChunkBytes = size_t{1} << 20;

std::shared_ptr<grpc::Channel> NewChannel(const std::string& server) {
  grpc::ChannelArguments args = ChannelArgumentsFor(server);
  args.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  return grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(),
                                   args);
}

}  // namespace

struct RpcClient::Impl {
  explicit Impl(const ServerFlags& server_flags)
      : flags(server_flags),
        channel(NewChannel(flags.server)),
        inference(channel),
        adapters(channel),
        admin(channel),
        training(channel) {}

  void Prepare(grpc::ClientContext* context) const {
    if (flags.timeout() == absl::InfiniteDuration()) return;
    context->set_deadline(std::chrono::system_clock::now() +
                          absl::ToChronoMicroseconds(flags.timeout()));
  }

  absl::Status ToStatus(const grpc::Status& status) const {
    return FromRpcStatus(status, flags.server);
  }

  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(
      Stub& stub,
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      const Request& request) {
    grpc::ClientContext context;
    Prepare(&context);
    Response response;
    RETURN_IF_ERROR(ToStatus((stub.*method)(&context, request, &response)));
    return response;
  }

  // Reads a stream until its end or until `on_event` has enough.
  template <typename Response>
  absl::Status Drain(grpc::ClientContext& context,
                     grpc::ClientReader<Response>& reader,
                     absl::FunctionRef<bool(const Response&)> on_event) {
    Response response;
    while (reader.Read(&response)) {
      if (!on_event(response)) context.TryCancel();
    }
    return ToStatus(reader.Finish());
  }

  // Collects all pages: `add` takes the entries of one.
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> CallPaged(
      Stub& stub,
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      Request request) {
    Response all;
    do {
      ASSIGN_OR_RETURN(const Response page, Call(stub, method, request));
      all.MergeFrom(page);
      request.set_page_token(page.next_page_token());
    } while (!request.page_token().empty());
    all.clear_next_page_token();
    return all;
  }

  const ServerFlags flags;
  const std::shared_ptr<grpc::Channel> channel;
  v1::InferenceService::Stub inference;
  v1::AdapterService::Stub adapters;
  v1::AdminService::Stub admin;
  v1::TrainingService::Stub training;
};

RpcClient::RpcClient(const ServerFlags& flags)
    : impl_(std::make_unique<Impl>(flags)) {}

RpcClient::~RpcClient() = default;

absl::Status RpcClient::Generate(
    const v1::GenerateRequest& request,
    absl::FunctionRef<bool(const v1::GenerateResponse&)> on_event) {
  grpc::ClientContext context;
  impl_->Prepare(&context);
  const auto reader = impl_->inference.Generate(&context, request);
  return impl_->Drain<v1::GenerateResponse>(context, *reader, on_event);
}

absl::StatusOr<v1::GenerateUnaryResponse> RpcClient::GenerateUnary(
    const v1::GenerateRequest& request) {
  v1::GenerateUnaryRequest unary;
  *unary.mutable_request() = request;
  return impl_->Call(impl_->inference,
                     &v1::InferenceService::Stub::GenerateUnary, unary);
}

absl::StatusOr<v1::TokenizeResponse> RpcClient::Tokenize(
    const v1::TokenizeRequest& request) {
  return impl_->Call(impl_->inference, &v1::InferenceService::Stub::Tokenize,
                     request);
}

absl::StatusOr<v1::ListModelsResponse> RpcClient::ListModels() {
  return impl_->CallPaged(impl_->inference,
                          &v1::InferenceService::Stub::ListModels,
                          v1::ListModelsRequest());
}

absl::StatusOr<v1::Adapter> RpcClient::CreateAdapter(
    const v1::CreateAdapterRequest& request) {
  return impl_->Call(impl_->adapters, &v1::AdapterService::Stub::CreateAdapter,
                     request);
}

absl::StatusOr<v1::Adapter> RpcClient::GetAdapter(
    const v1::GetAdapterRequest& request) {
  return impl_->Call(impl_->adapters, &v1::AdapterService::Stub::GetAdapter,
                     request);
}

absl::StatusOr<v1::ListAdaptersResponse> RpcClient::ListAdapters(
    const std::string& parent) {
  v1::ListAdaptersRequest request;
  request.set_parent(parent);
  return impl_->CallPaged(impl_->adapters,
                          &v1::AdapterService::Stub::ListAdapters, request);
}

absl::StatusOr<v1::Adapter> RpcClient::UpdateAdapter(
    const v1::UpdateAdapterRequest& request) {
  return impl_->Call(impl_->adapters, &v1::AdapterService::Stub::UpdateAdapter,
                     request);
}

absl::Status RpcClient::DeleteAdapter(const v1::DeleteAdapterRequest& request) {
  return impl_
      ->Call(impl_->adapters, &v1::AdapterService::Stub::DeleteAdapter, request)
      .status();
}

absl::StatusOr<v1::Adapter> RpcClient::LoadAdapter(
    const v1::LoadAdapterRequest& request) {
  return impl_->Call(impl_->adapters, &v1::AdapterService::Stub::LoadAdapter,
                     request);
}

absl::StatusOr<v1::Adapter> RpcClient::UnloadAdapter(
    const v1::UnloadAdapterRequest& request) {
  return impl_->Call(impl_->adapters, &v1::AdapterService::Stub::UnloadAdapter,
                     request);
}

absl::StatusOr<v1::TrainingJob> RpcClient::CreateTrainingJob(
    const v1::CreateTrainingJobRequest& request) {
  return impl_->Call(impl_->training,
                     &v1::TrainingService::Stub::CreateTrainingJob, request);
}

absl::StatusOr<v1::TrainingJob> RpcClient::GetTrainingJob(
    const v1::GetTrainingJobRequest& request) {
  return impl_->Call(impl_->training,
                     &v1::TrainingService::Stub::GetTrainingJob, request);
}

absl::StatusOr<v1::ListTrainingJobsResponse> RpcClient::ListTrainingJobs(
    const v1::ListTrainingJobsRequest& request) {
  return impl_->Call(impl_->training,
                     &v1::TrainingService::Stub::ListTrainingJobs, request);
}

absl::StatusOr<v1::TrainingJob> RpcClient::CancelTrainingJob(
    const v1::CancelTrainingJobRequest& request) {
  return impl_->Call(impl_->training,
                     &v1::TrainingService::Stub::CancelTrainingJob, request);
}

absl::Status RpcClient::WatchTrainingJob(
    const v1::WatchTrainingJobRequest& request,
    absl::FunctionRef<bool(const v1::TrainingJob&)> on_event) {
  grpc::ClientContext context;
  impl_->Prepare(&context);
  const auto reader = impl_->training.WatchTrainingJob(&context, request);
  return impl_->Drain<v1::TrainingJob>(context, *reader, on_event);
}

absl::Status RpcClient::WatchAdapters(
    const v1::WatchAdaptersRequest& request,
    absl::FunctionRef<bool(const v1::WatchAdaptersResponse&)> on_event) {
  grpc::ClientContext context;
  impl_->Prepare(&context);
  const auto reader = impl_->adapters.WatchAdapters(&context, request);
  return impl_->Drain<v1::WatchAdaptersResponse>(context, *reader, on_event);
}

absl::StatusOr<v1::Adapter> RpcClient::UploadAdapter(
    const v1::UploadAdapterRequest& first, const std::string& dir) {
  PosixFileSystem fs;
  std::vector<std::unique_ptr<MappedFile>> files;
  std::vector<std::string> names = {"adapter_config.json",
                                    "adapter_model.safetensors"};
  if (fs.FileExists(JoinPath(dir, "golden.jsonl"))) {
    names.push_back("golden.jsonl");
  }
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file,
                     fs.Map(JoinPath(dir, name)));
    files.push_back(std::move(file));
  }
  grpc::ClientContext context;
  impl_->Prepare(&context);
  v1::Adapter adapter;
  const auto writer = impl_->adapters.UploadAdapter(&context, &adapter);
  bool writing = writer->Write(first);
  for (size_t i = 0; i < files.size() && writing; ++i) {
    const absl::string_view bytes = files[i]->bytes();
    for (size_t at = 0; at < bytes.size() && writing; at += kChunkBytes) {
      const absl::string_view piece = bytes.substr(at, kChunkBytes);
      v1::UploadAdapterRequest part;
      v1::FileChunk& chunk = *part.mutable_chunk();
      chunk.set_file_name(names[i]);
      chunk.set_offset(at);
      chunk.set_data(piece.data(), piece.size());
      chunk.set_crc32c(Crc32c(piece));
      writing = writer->Write(part);
    }
  }
  writer->WritesDone();
  RETURN_IF_ERROR(impl_->ToStatus(writer->Finish()));
  return adapter;
}

absl::StatusOr<v1::ListAdapterVersionsResponse> RpcClient::ListAdapterVersions(
    const std::string& parent) {
  v1::ListAdapterVersionsRequest request;
  request.set_parent(parent);
  return impl_->CallPaged(
      impl_->adapters, &v1::AdapterService::Stub::ListAdapterVersions, request);
}

absl::StatusOr<v1::Alias> RpcClient::SetAlias(
    const v1::SetAliasRequest& request) {
  return impl_->Call(impl_->adapters, &v1::AdapterService::Stub::SetAlias,
                     request);
}

absl::StatusOr<v1::Alias> RpcClient::GetAlias(
    const v1::GetAliasRequest& request) {
  return impl_->Call(impl_->adapters, &v1::AdapterService::Stub::GetAlias,
                     request);
}

absl::StatusOr<v1::ListAliasesResponse> RpcClient::ListAliases(
    const std::string& parent) {
  v1::ListAliasesRequest request;
  request.set_parent(parent);
  return impl_->CallPaged(impl_->adapters,
                          &v1::AdapterService::Stub::ListAliases, request);
}

absl::Status RpcClient::DeleteAlias(const v1::DeleteAliasRequest& request) {
  return impl_
      ->Call(impl_->adapters, &v1::AdapterService::Stub::DeleteAlias, request)
      .status();
}

absl::StatusOr<v1::Alias> RpcClient::PromoteAlias(
    const v1::PromoteAliasRequest& request) {
  return impl_->Call(impl_->adapters, &v1::AdapterService::Stub::PromoteAlias,
                     request);
}

absl::StatusOr<v1::Alias> RpcClient::RollBackAlias(
    const v1::RollBackAliasRequest& request) {
  return impl_->Call(impl_->adapters, &v1::AdapterService::Stub::RollBackAlias,
                     request);
}

absl::StatusOr<v1::ListAuditEntriesResponse> RpcClient::ListAuditEntries(
    const v1::ListAuditEntriesRequest& request) {
  return impl_->Call(impl_->adapters,
                     &v1::AdapterService::Stub::ListAuditEntries, request);
}

absl::StatusOr<v1::GetServerInfoResponse> RpcClient::GetServerInfo() {
  return impl_->Call(impl_->admin, &v1::AdminService::Stub::GetServerInfo,
                     v1::GetServerInfoRequest());
}

absl::StatusOr<v1::MergeState> RpcClient::GetMergeState() {
  return impl_->Call(impl_->admin, &v1::AdminService::Stub::GetMergeState,
                     v1::GetMergeStateRequest());
}

absl::StatusOr<v1::VerifyBaseResponse> RpcClient::VerifyBase() {
  return impl_->Call(impl_->admin, &v1::AdminService::Stub::VerifyBase,
                     v1::VerifyBaseRequest());
}

}  // namespace lorikeet
