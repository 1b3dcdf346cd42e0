// Merged serving from outside: what a request may demand, what an adapter's
// policy does, what the administrator sees, and what is refused.

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/grpc/demo_server.h"

namespace lorikeet::testing {
namespace {

using ::testing::HasSubstr;

class MergeRpcTest : public ::testing::Test {
 protected:
  MergeRpcTest()
      : demo_([](ServerOptions* options) { options->max_merged = 2; }) {
    EXPECT_TRUE(demo_.Register("reverse").ok());
    EXPECT_TRUE(demo_.Register("upper").ok());
  }

  grpc::Status SetPolicy(const std::string& name, const std::string& policy,
                         v1::Adapter* adapter) {
    v1::UpdateAdapterRequest request;
    request.mutable_adapter()->set_name("tenants/default/adapters/" + name);
    request.mutable_adapter()->set_merge_policy(policy);
    request.mutable_update_mask()->add_paths("merge_policy");
    grpc::ClientContext context;
    return demo_.adapters().UpdateAdapter(&context, request, adapter);
  }
  v1::MergeState State() {
    grpc::ClientContext context;
    v1::MergeState state;
    EXPECT_TRUE(demo_.admin().GetMergeState(&context, {}, &state).ok());
    return state;
  }

  DemoServer demo_;
};

TEST_F(MergeRpcTest, ARequestGetsTheVariantItDemandsAndIsTold) {
  v1::GenerateRequest request = TextRequest("reverse", "Word: apple\nAnswer:");
  const Answer plain = demo_.Unary(request);
  EXPECT_EQ(plain.started.variant(), v1::VARIANT_UNMERGED);
  request.set_variant(v1::VARIANT_MERGED);
  const Answer merged = demo_.Unary(request);
  ASSERT_TRUE(merged.status.ok()) << merged.status.error_message();
  EXPECT_EQ(merged.started.variant(), v1::VARIANT_MERGED);
  EXPECT_EQ(merged.text(), plain.text());
  const v1::MergeState state = State();
  EXPECT_EQ(state.policy(), "never");
  EXPECT_EQ(state.max_merged(), 2u);
  ASSERT_EQ(state.variants_size(), 1);
  EXPECT_THAT(state.variants(0).adapters(0), HasSubstr("reverse@1"));
  EXPECT_EQ(state.variants(0).state(), v1::MergedVariant::STATE_MERGED);
  EXPECT_GT(state.variants(0).bytes(), 0u);
  EXPECT_EQ(state.variants(0).bytes(), state.variants(0).bytes_total());
}

TEST_F(MergeRpcTest, AnAdaptersPolicyHoldsForItAlone) {
  v1::Adapter adapter;
  ASSERT_TRUE(SetPolicy("reverse", "always", &adapter).ok());
  EXPECT_EQ(adapter.merge_policy(), "always");
  for (const char* const name : {"reverse", "upper", "base"}) {
    const Answer answer =
        demo_.Unary(TextRequest(name, "Word: apple\nAnswer:"));
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.started.variant() == v1::VARIANT_MERGED,
              std::string(name) == "reverse")
        << name;
  }
  ASSERT_TRUE(SetPolicy("reverse", "", &adapter).ok());
  EXPECT_EQ(adapter.merge_policy(), "");
  EXPECT_EQ(demo_.Unary(TextRequest("reverse", "Word: apple\nAnswer:"))
                .started.variant(),
            v1::VARIANT_UNMERGED);
}

TEST_F(MergeRpcTest, APolicyOfNoKnownNameIsRefused) {
  v1::Adapter adapter;
  const grpc::Status status = SetPolicy("reverse", "sometimes", &adapter);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("\"sometimes\""));
  EXPECT_EQ(DetailsOf(status).field, "adapter.merge_policy");
}

TEST_F(MergeRpcTest, DeletingAnAdapterFreesWhatWasMerged) {
  v1::GenerateRequest request = TextRequest("upper", "Word: apple\nAnswer:");
  request.set_variant(v1::VARIANT_MERGED);
  ASSERT_TRUE(demo_.Unary(request).status.ok());
  EXPECT_EQ(State().variants_size(), 1);
  v1::DeleteAdapterRequest remove;
  remove.set_name("tenants/default/adapters/upper");
  grpc::ClientContext context;
  google::protobuf::Empty empty;
  ASSERT_TRUE(demo_.adapters().DeleteAdapter(&context, remove, &empty).ok());
  EXPECT_EQ(State().variants_size(), 0);
}

TEST_F(MergeRpcTest, TheBaseIsWhatItWasAfterMerging) {
  v1::GenerateRequest request = TextRequest("reverse", "Word: apple\nAnswer:");
  request.set_variant(v1::VARIANT_MERGED);
  ASSERT_TRUE(demo_.Unary(request).status.ok());
  grpc::ClientContext context;
  v1::VerifyBaseResponse response;
  ASSERT_TRUE(demo_.admin().VerifyBase(&context, {}, &response).ok());
  EXPECT_TRUE(response.intact());
  EXPECT_EQ(response.checksum(), response.expected_checksum());
  EXPECT_EQ(response.checksum().size(), 8u);
  EXPECT_GT(response.bytes(), 1u << 20);
  EXPECT_EQ(response.failures(), 0u);
}

TEST_F(MergeRpcTest, TheBaseModelHasNoMergedVariant) {
  v1::GenerateRequest request = TextRequest("base", "x");
  request.set_variant(v1::VARIANT_MERGED);
  const grpc::Status status = demo_.Unary(request).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(status).reason, "MERGE_UNSUPPORTED");
}

TEST(MergeOffTest, WithoutAPlaceAMergedVariantIsRefused) {
  DemoServer demo([](ServerOptions* options) { options->max_merged = 0; });
  ASSERT_TRUE(demo.Register("reverse").ok());
  v1::GenerateRequest request = TextRequest("reverse", "x");
  request.set_variant(v1::VARIANT_MERGED);
  const grpc::Status status = demo.Unary(request).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailsOf(status).reason, "MERGE_OFF");
  EXPECT_THAT(status.error_message(), HasSubstr("max_merged is 0"));
}

}  // namespace
}  // namespace lorikeet::testing
