#include "server/frontend/error.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/engine/retry_after.h"

namespace lorikeet {
namespace {

constexpr absl::string_view kFieldUrl = "lorikeet/field";
constexpr absl::string_view kResourceTypeUrl = "lorikeet/resource_type";
constexpr absl::string_view kResourceNameUrl = "lorikeet/resource_name";
constexpr absl::string_view kMetadataUrl = "lorikeet/metadata/";

struct ReasonDelay {
  absl::string_view reason;
  absl::Duration delay;
};

// A full queue moves on within a step or two; after a drain another server is
// up; a device is free when requests have ended.
constexpr ReasonDelay kReasonDelays[] = {
    {"QUEUE_FULL", absl::Seconds(1)},
    {"ADMIN_QUEUE_FULL", absl::Seconds(1)},
    {"SERVER_DRAINING", absl::Seconds(5)},
    {"ADAPTER_LOADING", absl::Seconds(1)},
    {"DEVICE_FULL", absl::Seconds(1)},
};

absl::Status With(absl::Status status, absl::string_view url,
                  absl::string_view value) {
  if (!status.ok()) status.SetPayload(url, absl::Cord(value));
  return status;
}

std::string PayloadOf(const absl::Status& status, absl::string_view url) {
  const absl::optional<absl::Cord> payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : std::string();
}

}  // namespace

absl::Status FieldError(absl::string_view field, absl::string_view rest,
                        absl::string_view reason) {
  return WithField(
      WithReason(absl::InvalidArgumentError(absl::StrCat(field, " ", rest)),
                 reason),
      field);
}

absl::Status RangeError(absl::string_view field, absl::string_view value,
                        absl::string_view limits) {
  absl::Status status =
      FieldError(field, absl::StrCat(value, " is not in ", limits));
  status = WithMetadata(std::move(status), "value", value);
  return WithMetadata(std::move(status), "limit", limits);
}

absl::Status WithField(absl::Status status, absl::string_view field) {
  return With(std::move(status), kFieldUrl, field);
}

absl::Status WithResource(absl::Status status, absl::string_view type,
                          absl::string_view name) {
  status = With(std::move(status), kResourceTypeUrl, type);
  return With(std::move(status), kResourceNameUrl, name);
}

absl::Status WithMetadata(absl::Status status, absl::string_view key,
                          absl::string_view value) {
  return With(std::move(status), absl::StrCat(kMetadataUrl, key), value);
}

std::string FieldOf(const absl::Status& status) {
  return PayloadOf(status, kFieldUrl);
}

ErrorResource ResourceOf(const absl::Status& status) {
  return {PayloadOf(status, kResourceTypeUrl),
          PayloadOf(status, kResourceNameUrl)};
}

std::vector<std::pair<std::string, std::string>> MetadataOf(
    const absl::Status& status) {
  std::vector<std::pair<std::string, std::string>> metadata;
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    if (!absl::StartsWith(url, kMetadataUrl)) return;
    metadata.emplace_back(std::string(url.substr(kMetadataUrl.size())),
                          std::string(payload));
  });
  std::sort(metadata.begin(), metadata.end());
  return metadata;
}

std::optional<absl::Duration> RetryDelayOf(const absl::Status& status) {
  if (const auto hint = RetryAfterOf(status); hint.has_value()) return hint;
  const std::string reason = ReasonOf(status);
  for (const ReasonDelay& entry : kReasonDelays) {
    if (entry.reason == reason) return entry.delay;
  }
  return std::nullopt;
}

}  // namespace lorikeet
