// An RpcClient calls the server's methods and waits for the answers, with
// messages in and out and no gRPC types, so that only one file of the command
// pays for gRPC's headers. Lists come whole, over all pages.
//
// Errors are the server's, with its reason; UNAVAILABLE / NO_SERVER if nobody
// answers. Thread-safe.

#ifndef LORIKEET_CLI_RPC_CLIENT_H_
#define LORIKEET_CLI_RPC_CLIENT_H_

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/channel.h"
#include "lorikeet/v1/adapters.pb.h"
#include "lorikeet/v1/admin.pb.h"
#include "lorikeet/v1/inference.pb.h"
#include "lorikeet/v1/training.pb.h"

namespace lorikeet {

class RpcClient {
 public:
  // Does not connect yet.
  explicit RpcClient(const ServerFlags& flags);
  ~RpcClient();
  RpcClient(const RpcClient&) = delete;
  RpcClient& operator=(const RpcClient&) = delete;

  // Calls `on_event` for each event in order; ends the call as CANCELLED if it
  // returns false.
  absl::Status Generate(
      const v1::GenerateRequest& request,
      absl::FunctionRef<bool(const v1::GenerateResponse&)> on_event);
  absl::StatusOr<v1::GenerateUnaryResponse> GenerateUnary(
      const v1::GenerateRequest& request);
  absl::StatusOr<v1::TokenizeResponse> Tokenize(
      const v1::TokenizeRequest& request);
  absl::StatusOr<v1::ListModelsResponse> ListModels();

  absl::StatusOr<v1::Adapter> CreateAdapter(
      const v1::CreateAdapterRequest& request);
  absl::StatusOr<v1::Adapter> GetAdapter(const v1::GetAdapterRequest& request);
  absl::StatusOr<v1::ListAdaptersResponse> ListAdapters(
      const std::string& parent);
  absl::StatusOr<v1::Adapter> UpdateAdapter(
      const v1::UpdateAdapterRequest& request);
  absl::Status DeleteAdapter(const v1::DeleteAdapterRequest& request);
  absl::StatusOr<v1::Adapter> LoadAdapter(
      const v1::LoadAdapterRequest& request);
  absl::StatusOr<v1::Adapter> UnloadAdapter(
      const v1::UnloadAdapterRequest& request);
  absl::Status WatchAdapters(
      const v1::WatchAdaptersRequest& request,
      absl::FunctionRef<bool(const v1::WatchAdaptersResponse&)> on_event);
  // Sends `first` (a header or an update) and then the adapter's files from
  // `dir` on this machine.
  absl::StatusOr<v1::Adapter> UploadAdapter(
      const v1::UploadAdapterRequest& first, const std::string& dir);
  absl::StatusOr<v1::ListAdapterVersionsResponse> ListAdapterVersions(
      const std::string& parent);
  absl::StatusOr<v1::Alias> SetAlias(const v1::SetAliasRequest& request);
  absl::StatusOr<v1::Alias> GetAlias(const v1::GetAliasRequest& request);
  absl::StatusOr<v1::ListAliasesResponse> ListAliases(
      const std::string& parent);
  absl::Status DeleteAlias(const v1::DeleteAliasRequest& request);
  absl::StatusOr<v1::Alias> PromoteAlias(
      const v1::PromoteAliasRequest& request);
  absl::StatusOr<v1::Alias> RollBackAlias(
      const v1::RollBackAliasRequest& request);
  // One page.
  absl::StatusOr<v1::ListAuditEntriesResponse> ListAuditEntries(
      const v1::ListAuditEntriesRequest& request);

  absl::StatusOr<v1::GetServerInfoResponse> GetServerInfo();
  absl::StatusOr<v1::TrainingJob> CreateTrainingJob(
      const v1::CreateTrainingJobRequest& request);
  absl::StatusOr<v1::TrainingJob> GetTrainingJob(
      const v1::GetTrainingJobRequest& request);
  absl::StatusOr<v1::ListTrainingJobsResponse> ListTrainingJobs(
      const v1::ListTrainingJobsRequest& request);
  absl::Status WatchTrainingJob(
      const v1::WatchTrainingJobRequest& request,
      absl::FunctionRef<bool(const v1::TrainingJob&)> on_event);
  absl::StatusOr<v1::TrainingJob> CancelTrainingJob(
      const v1::CancelTrainingJobRequest& request);

  absl::StatusOr<v1::MergeState> GetMergeState();
  absl::StatusOr<v1::VerifyBaseResponse> VerifyBase();

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace lorikeet

#endif  // LORIKEET_CLI_RPC_CLIENT_H_
