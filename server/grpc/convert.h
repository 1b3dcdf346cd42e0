// Between the messages of proto/lorikeet/v1 and the types of the frontend.
//
// Pure.

#ifndef LORIKEET_SERVER_GRPC_CONVERT_H_
#define LORIKEET_SERVER_GRPC_CONVERT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "lorikeet/v1/adapters.pb.h"
#include "lorikeet/v1/admin.pb.h"
#include "lorikeet/v1/inference.pb.h"
#include "server/frontend/adapter_service.h"
#include "server/frontend/admin_service.h"
#include "server/frontend/generate_service.h"

namespace lorikeet {

// ---- names -----------------------------------------------------------------

struct ResourceName {
  std::string tenant;
  std::string id;
};
// Parses "tenants/T/COLLECTION/ID". Errors: INVALID_ARGUMENT naming `field`.
absl::StatusOr<ResourceName> ParseName(absl::string_view field,
                                       absl::string_view collection,
                                       const std::string& name);
// Parses "tenants/T".
absl::StatusOr<std::string> ParseTenant(absl::string_view field,
                                        const std::string& name);
std::string AdapterName(const std::string& tenant, const std::string& id);
std::string AliasName(const std::string& tenant, const std::string& id);

// An etag is the number as text. Errors: ABORTED / ETAG_MISMATCH if it is none,
// since no resource ever had it.
absl::StatusOr<std::optional<uint64_t>> ParseEtag(const std::string& etag);

// ---- inference -------------------------------------------------------------

absl::StatusOr<GenerateInput> ToGenerateInput(const v1::GenerateRequest& in);

// Says what a generation's events look like in messages.
struct EventContext {
  std::string request_id;
  std::vector<GenerationAdapter> adapters;
  bool names_parts = false;  // the request had `adapters`
  bool omit_token_ids = false;
  std::function<std::string(Token)> token_bytes;
};
void ToProto(const StartedEvent& in, const EventContext& context,
             v1::GenerationStarted* out);
void ToProto(const DeltaEvent& in, const EventContext& context,
             v1::TokenDelta* out);
void ToProto(const FinishedEvent& in, v1::GenerationFinished* out);
// Adds what a candidate got to what it has.
void Append(v1::TokenDelta&& delta, v1::TokenDelta* out);

// ---- adapters --------------------------------------------------------------

absl::StatusOr<CreateAdapterInput> ToCreateInput(
    const v1::CreateAdapterRequest& in, const std::string& actor);
absl::StatusOr<UpdateAdapterInput> ToUpdateInput(
    const v1::UpdateAdapterRequest& in, const std::string& actor);
InFlightPolicy ToPolicy(v1::InFlightPolicy in);
// Errors: INVALID_ARGUMENT naming `field` for an unknown number.
absl::StatusOr<Tier> ToTier(absl::string_view field, v1::Tier in,
                            Tier fallback);
// `error` is why the adapter is failed, or OK.
void ToProto(const AdapterInfo& in, const ModelInfo& model,
             const absl::Status& error, v1::Adapter* out);
void ToProto(const AdapterVersionInfo& in, v1::Version* out);

// ---- administration --------------------------------------------------------

void ToProto(const AdminService& in, v1::GetServerInfoResponse* out);
void ToProto(const ServerLoad& in, v1::Load* out);

// ---- time ------------------------------------------------------------------

void ToProto(absl::Time in, google::protobuf::Timestamp* out);
void ToProto(absl::Duration in, google::protobuf::Duration* out);
// Errors: INVALID_ARGUMENT naming `field`, value and limits.
absl::StatusOr<absl::Duration> ToDuration(absl::string_view field,
                                          const google::protobuf::Duration& in,
                                          absl::Duration min,
                                          absl::Duration max);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_GRPC_CONVERT_H_
