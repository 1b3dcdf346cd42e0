// The pure parts: parsing, names, pages, error details.

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "lorikeet/v1/adapters.pb.h"
#include "lorikeet/v1/inference.pb.h"
#include "server/engine/retry_after.h"
#include "server/frontend/error.h"
#include "server/grpc/convert.h"
#include "server/grpc/page.h"
#include "server/grpc/request_parser.h"
#include "server/grpc/status_details.h"

namespace lorikeet {
namespace {

TEST(ParseMessage, NamesTheFieldThatIsNoUtf8) {
  v1::UpdateAdapterRequest request;
  request.mutable_adapter()->mutable_source()->set_local_path("ab");
  std::string bytes = request.SerializeAsString();
  v1::UpdateAdapterRequest parsed;
  EXPECT_TRUE(ParseMessage(bytes, &parsed).ok());
  bytes.back() = '\xff';
  const absl::Status status = ParseMessage(bytes, &parsed);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "INVALID_UTF8");
  EXPECT_EQ(FieldOf(status), "adapter.source.local_path");
}

TEST(ParseMessage, RefusesNoiseOfAnyLength) {
  std::string bytes;
  uint32_t state = 1;
  for (int i = 0; i < 2000; ++i) {
    state = state * 1664525 + 1013904223;
    bytes.push_back(static_cast<char>(state >> 24));
    v1::GenerateRequest request;
    const absl::Status status = ParseMessage(bytes, &request);
    if (!status.ok()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_NE(ReasonOf(status), "");
    }
  }
}

TEST(Names, AreParsedStrictly) {
  const auto name = ParseName("name", "adapters", "tenants/default/adapters/a");
  ASSERT_TRUE(name.ok());
  EXPECT_EQ(name->tenant, "default");
  EXPECT_EQ(name->id, "a");
  for (const char* const bad :
       {"", "a", "tenants/default/aliases/a", "tenants/default/adapters",
        "tenants/default/adapters/a/b", "/tenants/default/adapters/a"}) {
    EXPECT_FALSE(ParseName("name", "adapters", bad).ok()) << bad;
  }
  EXPECT_TRUE(ParseTenant("parent", "tenants/x").ok());
  EXPECT_FALSE(ParseTenant("parent", "tenants").ok());
  EXPECT_FALSE(ParseTenant("parent", "tenants/x/y").ok());
}

TEST(Pages, GoOnBehindTheLastEntry) {
  const auto key = [](const std::string& entry) { return entry; };
  const auto before = [](const std::string& a, const std::string& b) {
    return a < b;
  };
  const auto cut = [&](std::vector<std::string> all, int32_t size,
                       const std::string& token) {
    return CutPage<std::string>(std::move(all), size, token, key, before);
  };
  auto page = cut({"a", "b", "c"}, 2, "");
  ASSERT_TRUE(page.ok());
  EXPECT_EQ(page->entries, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(page->next_page_token, "b");
  // "b" is gone meanwhile and "bb" is new: nothing is lost or repeated.
  page = cut({"a", "bb", "c"}, 2, page->next_page_token);
  EXPECT_EQ(page->entries, (std::vector<std::string>{"bb", "c"}));
  EXPECT_EQ(page->next_page_token, "");
  EXPECT_EQ(cut({"a", "b"}, 2, "")->next_page_token, "");
  EXPECT_FALSE(cut({"a"}, -1, "").ok());
}

TEST(StatusDetails, CarryReasonFieldResourceAndRetry) {
  absl::Status status = RangeError("sampling.n", "65", "[1, 64]");
  status = WithResource(status, "adapter", "x");
  status = WithRetryAfter(status, absl::Milliseconds(1500));
  google::rpc::Status out;
  ASSERT_TRUE(out.ParseFromString(StatusDetails(status)));
  EXPECT_EQ(out.code(), 3);
  EXPECT_EQ(out.message(), "sampling.n 65 is not in [1, 64]");
  ASSERT_EQ(out.details_size(), 4);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(out.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "INVALID_FIELD");
  EXPECT_EQ(info.domain(), "lorikeet");
  EXPECT_EQ(info.metadata().at("field"), "sampling.n");
  EXPECT_EQ(info.metadata().at("value"), "65");
  EXPECT_EQ(info.metadata().at("limit"), "[1, 64]");
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(out.details(1).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500000000);
  google::rpc::BadRequest bad;
  ASSERT_TRUE(out.details(2).UnpackTo(&bad));
  EXPECT_EQ(bad.field_violations(0).field(), "sampling.n");
  google::rpc::ResourceInfo resource;
  ASSERT_TRUE(out.details(3).UnpackTo(&resource));
  EXPECT_EQ(resource.resource_name(), "x");
  EXPECT_EQ(out.details(0).type_url(),
            "type.googleapis.com/google.rpc.ErrorInfo");
}

TEST(StatusDetails, AlwaysHaveAReason) {
  google::rpc::Status out;
  ASSERT_TRUE(out.ParseFromString(
      StatusDetails(absl::InternalError("caf\xe9 is no UTF-8"))));
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(out.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "INTERNAL");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

TEST(Durations, AreChecked) {
  google::protobuf::Duration d;
  d.set_seconds(2);
  d.set_nanos(5);
  const auto value = ToDuration("t", d, absl::ZeroDuration(), absl::Seconds(3));
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(*value, absl::Seconds(2) + absl::Nanoseconds(5));
  d.set_seconds(-1);
  EXPECT_FALSE(ToDuration("t", d, absl::ZeroDuration(), absl::Seconds(3)).ok());
  d.set_seconds(INT64_MAX);
  EXPECT_FALSE(ToDuration("t", d, absl::ZeroDuration(), absl::Seconds(3)).ok());
}

TEST(Adapters, TellTheirFeatures) {
  AdapterInfo info;
  info.newest.features.keys = {"use_dora", "bias"};
  v1::Adapter out;
  ToProto(info, ModelInfo(), absl::OkStatus(), &out);
  EXPECT_EQ(out.lora().features_size(), 2);
  EXPECT_EQ(out.lora().features(1), "bias");
  EXPECT_TRUE(out.lora().use_dora());
}

TEST(Generate, PartsWithoutAScaleHaveNone) {
  v1::GenerateRequest request;
  request.add_adapters()->set_name("a");
  v1::AdapterPart& zero = *request.add_adapters();
  zero.set_name("b");
  zero.set_scale(0);
  const auto input = ToGenerateInput(request);
  ASSERT_TRUE(input.ok()) << input.status();
  ASSERT_EQ(input->adapters.size(), 2u);
  EXPECT_EQ(input->adapters[0].scale, std::nullopt);
  EXPECT_EQ(input->adapters[1].scale, 0.0f);
}

}  // namespace
}  // namespace lorikeet
