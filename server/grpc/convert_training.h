// Training jobs as messages.
//
// Pure.

#ifndef LORIKEET_SERVER_GRPC_CONVERT_TRAINING_H_
#define LORIKEET_SERVER_GRPC_CONVERT_TRAINING_H_

#include "absl/status/statusor.h"
#include "lorikeet/v1/training.pb.h"
#include "server/training/training_service.h"

namespace lorikeet {

// The collection of "tenants/T/trainingJobs/ID".
inline constexpr char kTrainingJobs[] = "trainingJobs";

// Errors: INVALID_ARGUMENT naming the field.
absl::StatusOr<CreateJobInput> ToCreateJobInput(
    const v1::CreateTrainingJobRequest& in);
void ToProto(const JobRecord& in, v1::TrainingJob* out);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_CONVERT_TRAINING_H_
