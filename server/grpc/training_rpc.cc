#include "server/grpc/training_rpc.h"

#include <memory>
#include <string>
#include <utility>

#include "base/status.h"
#include "lorikeet/v1/training.grpc.pb.h"
#include "server/grpc/call.h"
#include "server/grpc/convert.h"
#include "server/grpc/convert_training.h"
#include "server/grpc/periodic_call.h"

namespace lorikeet {
namespace {

using Stub = v1::TrainingService;
using RawService = Stub::WithRawCallbackMethod_CreateTrainingJob<
    Stub::WithRawCallbackMethod_GetTrainingJob<
        Stub::WithRawCallbackMethod_ListTrainingJobs<
            Stub::WithRawCallbackMethod_WatchTrainingJob<
                Stub::WithRawCallbackMethod_CancelTrainingJob<
                    Stub::Service>>>>>;

using Context = grpc::CallbackServerContext;
using Bytes = grpc::ByteBuffer;
using Unary = grpc::ServerUnaryReactor;

absl::StatusOr<std::string> IdOf(const std::string& name) {
  ASSIGN_OR_RETURN(const ResourceName parsed,
                   ParseName("name", kTrainingJobs, name));
  return parsed.id;
}

absl::StatusOr<v1::TrainingJob> ToMessage(
    const absl::StatusOr<JobRecord>& record) {
  RETURN_IF_ERROR(record.status());
  v1::TrainingJob job;
  ToProto(*record, &job);
  return job;
}

class TrainingRpc final : public RawService {
 public:
  TrainingRpc(TrainingService& service, BackgroundQueue& small,
              BackgroundQueue& slow)
      : service_(service), small_(small), slow_(slow) {}

  Unary* CreateTrainingJob(Context* context, const Bytes* in,
                           Bytes* out) override {
    return RunUnary<v1::CreateTrainingJobRequest, v1::TrainingJob>(
        context, in, out, slow_,
        [this](const v1::CreateTrainingJobRequest& request,
               const CallLimits&) -> absl::StatusOr<v1::TrainingJob> {
          ASSIGN_OR_RETURN(const CreateJobInput input,
                           ToCreateJobInput(request));
          return ToMessage(service_.Create(input));
        });
  }

  Unary* GetTrainingJob(Context* context, const Bytes* in,
                        Bytes* out) override {
    return RunUnary<v1::GetTrainingJobRequest, v1::TrainingJob>(
        context, in, out, small_,
        [this](const v1::GetTrainingJobRequest& request,
               const CallLimits&) -> absl::StatusOr<v1::TrainingJob> {
          ASSIGN_OR_RETURN(const std::string id, IdOf(request.name()));
          return ToMessage(service_.Get(id));
        });
  }

  Unary* ListTrainingJobs(Context* context, const Bytes* in,
                          Bytes* out) override {
    return RunUnary<v1::ListTrainingJobsRequest, v1::ListTrainingJobsResponse>(
        context, in, out, small_,
        [this](const v1::ListTrainingJobsRequest& request, const CallLimits&)
            -> absl::StatusOr<v1::ListTrainingJobsResponse> {
          RETURN_IF_ERROR(ParseTenant("parent", request.parent()).status());
          ASSIGN_OR_RETURN(const std::vector<JobRecord> records,
                           service_.List());
          v1::ListTrainingJobsResponse response;
          for (const JobRecord& record : records) {
            ToProto(record, response.add_jobs());
          }
          return response;
        });
  }

  grpc::ServerWriteReactor<Bytes>* WatchTrainingJob(Context* context,
                                                    const Bytes* in) override {
    v1::WatchTrainingJobRequest request;
    absl::Status status = SetRequestId(*context).status();
    if (status.ok()) status = ReadRequest(*in, &request);
    const absl::StatusOr<std::string> id = IdOf(request.name());
    if (status.ok()) status = id.status();
    return PeriodicCall::Start(
        status.ok() ? PeriodicCall::IntervalOf(request) : status,
        [this, id]() -> absl::StatusOr<PeriodicCall::Next> {
          ASSIGN_OR_RETURN(const JobRecord record, service_.Get(*id));
          v1::TrainingJob job;
          ToProto(record, &job);
          return PeriodicCall::Next{ToByteBuffer(job), IsFinal(record.state)};
        });
  }

  Unary* CancelTrainingJob(Context* context, const Bytes* in,
                           Bytes* out) override {
    return RunUnary<v1::CancelTrainingJobRequest, v1::TrainingJob>(
        context, in, out, small_,
        [this](const v1::CancelTrainingJobRequest& request,
               const CallLimits&) -> absl::StatusOr<v1::TrainingJob> {
          ASSIGN_OR_RETURN(const std::string id, IdOf(request.name()));
          return ToMessage(service_.Cancel(id));
        });
  }

 private:
  TrainingService& service_;
  BackgroundQueue& small_;
  BackgroundQueue& slow_;
};

}  // namespace

std::unique_ptr<grpc::Service> NewTrainingRpc(TrainingService& service,
                                              BackgroundQueue& small,
                                              BackgroundQueue& slow) {
  return std::make_unique<TrainingRpc>(service, small, slow);
}

}  // namespace lorikeet
