#include "adapters/adapter_status.h"

#include "absl/strings/str_cat.h"
#include "base/reason.h"
#include "base/text.h"

namespace lorikeet {

std::string DescribeName(const std::string& tenant, const std::string& name) {
  return absl::StrCat(Quote(name), " of tenant ", Quote(tenant));
}

absl::Status AdapterNotFound(const std::string& tenant,
                             const std::string& name) {
  return WithReason(
      absl::NotFoundError(absl::StrCat("adapter ", DescribeName(tenant, name),
                                       " does not exist")),
      "ADAPTER_NOT_FOUND");
}

absl::Status AliasNotFound(const std::string& tenant, const std::string& name) {
  return WithReason(
      absl::NotFoundError(absl::StrCat("alias ", DescribeName(tenant, name),
                                       " does not exist")),
      "ALIAS_NOT_FOUND");
}

absl::Status NameTaken(const std::string& tenant, const std::string& name,
                       absl::string_view what) {
  return WithReason(
      absl::AlreadyExistsError(absl::StrCat("name ", DescribeName(tenant, name),
                                            " belongs to an ", what)),
      "ADAPTER_EXISTS");
}

absl::Status CheckEtag(std::optional<uint64_t> expected, uint64_t actual) {
  if (!expected.has_value() || *expected == actual) return absl::OkStatus();
  return WithReason(
      absl::AbortedError(absl::StrCat("etag is ", actual, ", the caller has ",
                                      *expected, ": it changed meanwhile")),
      "ETAG_MISMATCH");
}

absl::Status AdapterInUse(const std::string& tenant, const std::string& name,
                          int64_t users) {
  return WithReason(
      absl::FailedPreconditionError(
          absl::StrCat("adapter ", DescribeName(tenant, name), " is in use by ",
                       users, users == 1 ? " request" : " requests")),
      "ADAPTER_IN_USE");
}

absl::Status AdapterDraining(const std::string& tenant,
                             const std::string& name) {
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat(
          "adapter ", DescribeName(tenant, name), " is being deleted")),
      "ADAPTER_DRAINING");
}

}  // namespace lorikeet
