#include "server/grpc/status_details.h"

#include <optional>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/reason.h"
#include "base/text.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/frontend/error.h"

namespace lorikeet {
namespace {

// gRPC refuses a longer status text than fits its metadata.
constexpr size_t kMaxMessageBytes = 2048;

std::string SentMessage(const absl::Status& status) {
  const std::string message(status.message());
  // Quoted names are UTF-8 already; this is for what a library said.
  if (message.size() <= kMaxMessageBytes && IsValidUtf8(message)) {
    return message;
  }
  return Escape(message, kMaxMessageBytes);
}

}  // namespace

std::string SentReason(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason.empty() ? absl::StatusCodeToString(status.code()) : reason;
}

std::string StatusDetails(const absl::Status& status) {
  google::rpc::Status out;
  out.set_code(static_cast<int32_t>(status.code()));
  out.set_message(SentMessage(status));
  const std::string reason = SentReason(status);
  const std::string field = FieldOf(status);
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain(kErrorDomain);
  for (const auto& [key, value] : MetadataOf(status)) {
    (*info.mutable_metadata())[key] = Escape(value);
  }
  if (!field.empty()) (*info.mutable_metadata())["field"] = field;
  out.add_details()->PackFrom(info);
  if (const auto delay = RetryDelayOf(status); delay.has_value()) {
    google::rpc::RetryInfo retry;
    const int64_t ms = absl::ToInt64Milliseconds(*delay);
    retry.mutable_retry_delay()->set_seconds(ms / 1000);
    retry.mutable_retry_delay()->set_nanos(
        static_cast<int32_t>(ms % 1000 * 1000000));
    out.add_details()->PackFrom(retry);
  }
  if (!field.empty()) {
    google::rpc::BadRequest bad;
    auto* const violation = bad.add_field_violations();
    violation->set_field(field);
    violation->set_description(SentMessage(status));
    violation->set_reason(reason);
    out.add_details()->PackFrom(bad);
  }
  if (const ErrorResource resource = ResourceOf(status);
      !resource.type.empty()) {
    google::rpc::ResourceInfo named;
    named.set_resource_type(resource.type);
    named.set_resource_name(Escape(resource.name));
    out.add_details()->PackFrom(named);
  }
  return out.SerializeAsString();
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      SentMessage(status), StatusDetails(status));
}

}  // namespace lorikeet
