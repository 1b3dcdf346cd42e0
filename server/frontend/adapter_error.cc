#include "server/frontend/adapter_error.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/frontend/error.h"

namespace lorikeet {
namespace {

absl::string_view DefaultReason(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kNotFound:
      return "ADAPTER_NOT_FOUND";
    case absl::StatusCode::kAlreadyExists:
      return "ADAPTER_EXISTS";
    case absl::StatusCode::kAborted:
      return "ETAG_MISMATCH";
    case absl::StatusCode::kPermissionDenied:
      return "PATH_NOT_ALLOWED";
    case absl::StatusCode::kUnimplemented:
      return "ADAPTER_UNSUPPORTED";
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kDataLoss:
      return "ADAPTER_INVALID";
    case absl::StatusCode::kFailedPrecondition:
      return "ADAPTER_IN_USE";
    case absl::StatusCode::kDeadlineExceeded:
      return "ADAPTER_LOADING";
    default:
      return "ADAPTER_ERROR";
  }
}

}  // namespace

absl::Status About(const absl::Status& status, absl::string_view type,
                   const std::string& tenant, const std::string& name) {
  if (status.ok()) return status;
  absl::Status result = status;
  if (status.code() != absl::StatusCode::kInternal) {
    result = WithDefaultReason(std::move(result), DefaultReason(status.code()));
  }
  return WithResource(
      std::move(result), type,
      absl::StrCat("tenants/", tenant, "/",
                   type == "alias" ? "aliases/" : "adapters/", name));
}

}  // namespace lorikeet
