#include "loadgen/rpc_status.h"

#include <google/protobuf/util/time_util.h>
#include <grpcpp/support/status.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/reason.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace lorikeet {
namespace {

// What gRPC says itself, without a word from the server.
absl::Status NoServer(const std::string& message, const std::string& server) {
  if (!absl::StrContains(message, "connect")) {
    return WithReason(absl::UnavailableError(absl::StrCat(
                          "the connection to ", server, " broke: ", message)),
                      "CONNECTION_LOST");
  }
  // "failed to connect to all addresses; last error: ...: Connection refused"
  const size_t colon = message.rfind(": ");
  const std::string cause =
      colon == std::string::npos ? message : message.substr(colon + 2);
  return WithReason(
      absl::UnavailableError(absl::StrCat(
          "no server at ", server, " (", cause,
          "); is `lorikeet serve` running? --server or LORIKEET_SERVER names "
          "another address")),
      "NO_SERVER");
}

}  // namespace

absl::Status FromRpcStatus(const grpc::Status& status,
                           const std::string& server) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  if (code == absl::StatusCode::kUnavailable &&
      status.error_details().empty()) {
    return NoServer(status.error_message(), server);
  }
  std::string message = status.error_message();
  std::string reason;
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details())) {
    for (const google::protobuf::Any& detail : details.details()) {
      google::rpc::ErrorInfo info;
      google::rpc::RetryInfo retry;
      if (detail.UnpackTo(&info)) {
        reason = info.reason();
      } else if (detail.UnpackTo(&retry)) {
        absl::StrAppend(
            &message, " (retry after ",
            google::protobuf::util::TimeUtil::ToString(retry.retry_delay()),
            ")");
      }
    }
  }
  absl::Status result(code, message);
  return reason.empty() ? result : WithReason(result, reason);
}

}  // namespace lorikeet
