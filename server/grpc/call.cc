#include "server/grpc/call.h"

#include <atomic>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/random.h"
#include "base/status.h"
#include "server/frontend/error.h"

namespace lorikeet {
namespace {

bool IsGoodRequestId(absl::string_view id) {
  if (id.empty() || id.size() > kMaxRequestIdBytes) return false;
  for (const char c : id) {
    if (c < '!' || c > '~') return false;
  }
  return true;
}

std::string NewRequestId() {
  static const uint64_t process = RandomSeed();
  static std::atomic<uint64_t> next = 0;
  return absl::StrFormat("%016x-%x", process, next.fetch_add(1));
}

constexpr char kRequestIdKey[] = "x-request-id";

}  // namespace

absl::Status ReadRequest(const grpc::ByteBuffer& in,
                         google::protobuf::Message* message) {
  grpc::ByteBuffer buffer(in);
  grpc::Slice slice;
  if (!buffer.DumpToSingleSlice(&slice).ok()) {
    return absl::InternalError("request bytes cannot be read");
  }
  return ParseMessage(
      std::string(reinterpret_cast<const char*>(slice.begin()), slice.size()),
      message);
}

grpc::ByteBuffer ToByteBuffer(const google::protobuf::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

absl::StatusOr<std::string> SetRequestId(grpc::CallbackServerContext& context,
                                         const std::string& given) {
  std::string id = given;
  if (id.empty()) {
    const auto it = context.client_metadata().find(kRequestIdKey);
    if (it != context.client_metadata().end()) {
      id.assign(it->second.data(), it->second.size());
    }
    if (!IsGoodRequestId(id)) id = NewRequestId();
  } else if (!IsGoodRequestId(id)) {
    return FieldError("request_id",
                      absl::StrCat("is not 1 to ", kMaxRequestIdBytes,
                                   " printable ASCII characters"));
  }
  context.AddInitialMetadata(kRequestIdKey, id);
  return id;
}

CallLimits LimitsOf(const grpc::CallbackServerContext& context) {
  CallLimits limits;
  // A caller without a deadline has one some centuries from now.
  limits.timeout = absl::FromChrono(context.deadline()) - absl::Now();
  limits.cancelled = [&context] { return context.IsCancelled(); };
  limits.actor = context.peer();
  return limits;
}

absl::Status QueueFull() {
  return WithReason(
      absl::ResourceExhaustedError("too many calls wait for this service"),
      "ADMIN_QUEUE_FULL");
}

}  // namespace lorikeet
