// Canaries, shadows, roll backs and the trail against a server with the demo
// model. caesar@1 shifts letters by 3, caesar@2 by 5.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/log.h"
#include "tests/server/grpc/demo_server.h"
#include "tests/testing/golden.h"
#include "tests/testing/safetensors_writer.h"

namespace lorikeet::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kPrompt[] = "Word: parrot\nAnswer:";

class RolloutTest : public ::testing::Test {
 protected:
  RolloutTest() {
    EXPECT_TRUE(demo_.Register("caesar").ok());
    grpc::ClientContext context;
    v1::UpdateAdapterRequest request;
    request.mutable_adapter()->set_name("tenants/default/adapters/caesar");
    request.mutable_adapter()->mutable_source()->set_local_path(
        DemoDir() + "/adapters-v2/caesar");
    v1::Adapter adapter;
    EXPECT_TRUE(
        demo_.adapters().UpdateAdapter(&context, request, &adapter).ok());
  }

  static std::string NameOf(const std::string& id) {
    return "tenants/default/aliases/" + id;
  }
  // Targets as "caesar@1:95"; the alias is "task".
  static v1::SetAliasRequest Split(const std::vector<std::string>& targets) {
    v1::SetAliasRequest request;
    v1::Alias& alias = *request.mutable_alias();
    alias.set_name(NameOf("task"));
    for (const std::string& text : targets) {
      const size_t colon = text.find(':');
      v1::AliasTarget& target = *alias.add_targets();
      target.set_version(text.substr(0, colon));
      if (colon != std::string::npos) {
        target.set_weight(
            static_cast<uint32_t>(std::stoul(text.substr(colon + 1))));
      }
    }
    return request;
  }
  grpc::Status Set(const v1::SetAliasRequest& request) {
    grpc::ClientContext context;
    return demo_.adapters().SetAlias(&context, request, &alias_);
  }
  grpc::Status Promote(const std::string& version = "",
                       const std::string& id = "task") {
    grpc::ClientContext context;
    v1::PromoteAliasRequest request;
    request.set_name(NameOf(id));
    request.set_version(version);
    return demo_.adapters().PromoteAlias(&context, request, &alias_);
  }
  grpc::Status RollBack(const std::string& reason = "",
                        const std::string& etag = "") {
    grpc::ClientContext context;
    v1::RollBackAliasRequest request;
    request.set_name(NameOf("task"));
    request.set_reason(reason);
    request.set_etag(etag);
    return demo_.adapters().RollBackAlias(&context, request, &alias_);
  }
  v1::Alias Get() {
    grpc::ClientContext context;
    v1::GetAliasRequest request;
    request.set_name(NameOf("task"));
    v1::Alias alias;
    EXPECT_TRUE(demo_.adapters().GetAlias(&context, request, &alias).ok());
    return alias;
  }
  std::vector<std::string> Targets() {
    std::vector<std::string> targets;
    const v1::Alias alias = Get();
    for (const v1::AliasTarget& t : alias.targets()) {
      targets.push_back(absl::StrCat(t.version(), ":", t.weight()));
    }
    return targets;
  }
  v1::ListAuditEntriesResponse Audit(int32_t page_size = 0,
                                     const std::string& token = "") {
    grpc::ClientContext context;
    v1::ListAuditEntriesRequest request;
    request.set_parent("tenants/default");
    request.set_resource("task");
    request.set_page_size(page_size);
    request.set_page_token(token);
    v1::ListAuditEntriesResponse response;
    EXPECT_TRUE(
        demo_.adapters().ListAuditEntries(&context, request, &response).ok());
    return response;
  }
  uint32_t VersionFor(const std::string& key, const std::string& id = "") {
    v1::GenerateRequest request = TextRequest("task", kPrompt, 2);
    request.set_routing_key(key);
    request.set_request_id(id);
    const Answer answer = demo_.Stream(request);
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    return answer.started.adapter_version();
  }
  // Counts come with the end of a stream, a moment after its reader's.
  bool Becomes(const std::function<bool()>& condition) {
    for (int i = 0; i < 2000; ++i) {
      if (condition()) return true;
      lorikeet::SleepFor(absl::Milliseconds(5));
    }
    return false;
  }
  static void ExpectError(const grpc::Status& status, grpc::StatusCode code,
                          const std::string& reason) {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_EQ(DetailsOf(status).reason, reason) << status.error_message();
  }

  DemoServer demo_;
  v1::Alias alias_;  // of the last answer
};

// ---- splits -----------------------------------------------------------------

TEST_F(RolloutTest, TheSameKeyStaysOnTheSameVersion) {
  ASSERT_TRUE(Set(Split({"caesar@1:1", "caesar@2:1"})).ok());
  std::set<uint32_t> seen;
  for (int i = 0; i < 12; ++i) {
    const std::string key = absl::StrCat("user-", i);
    const uint32_t version = VersionFor(key);
    EXPECT_EQ(VersionFor(key), version);
    seen.insert(version);
  }
  EXPECT_EQ(seen.size(), 2u);
}

TEST_F(RolloutTest, WithoutAKeyTheRequestIdDecides) {
  ASSERT_TRUE(Set(Split({"caesar@1:1", "caesar@2:1"})).ok());
  std::set<uint32_t> seen;
  for (int i = 0; i < 12; ++i) {
    const std::string id = absl::StrCat("request-", i);
    const uint32_t version = VersionFor("", id);
    EXPECT_EQ(VersionFor("", id), version);
    seen.insert(version);
  }
  EXPECT_EQ(seen.size(), 2u);
}

TEST_F(RolloutTest, ACanaryIsPromotedAndRolledBack) {
  ASSERT_TRUE(Set(Split({"caesar@1:95", "caesar@2:5"})).ok());
  ASSERT_TRUE(Promote().ok());
  EXPECT_EQ(alias_.targets(0).version(), "caesar@2");
  EXPECT_EQ(alias_.previous(), "caesar@1");
  EXPECT_EQ(demo_.Stream(TextRequest("task", kPrompt)).text(), " ufwwty");
  ASSERT_TRUE(RollBack("the shift is wrong").ok());
  EXPECT_EQ(demo_.Stream(TextRequest("task", kPrompt)).text(), " sduurw");
  EXPECT_EQ(alias_.previous(), "");
}

TEST_F(RolloutTest, CountsWhatItsTargetsDid) {
  ASSERT_TRUE(Set(Split({"caesar@1:1", "caesar@2:1"})).ok());
  for (int i = 0; i < 12; ++i) VersionFor(absl::StrCat(i));
  EXPECT_TRUE(Becomes([&] {
    const v1::Alias alias = Get();
    return alias.targets(0).requests() + alias.targets(1).requests() == 12;
  }));
  const v1::Alias alias = Get();
  EXPECT_GT(alias.targets(0).requests(), 0u);
  EXPECT_GT(alias.targets(1).requests(), 0u);
  EXPECT_EQ(alias.targets(0).errors(), 0u);
  EXPECT_TRUE(alias.targets(0).has_latency_p95());
}

// ---- the rule ---------------------------------------------------------------

TEST_F(RolloutTest, ACandidateThatFailsIsRolledBackByItself) {
  SetLogLevel(LogLevel::kOff);
  // A third version whose files are damaged before its first use.
  grpc::ClientContext context;
  v1::UpdateAdapterRequest update;
  update.mutable_adapter()->set_name("tenants/default/adapters/caesar");
  update.mutable_adapter()->mutable_source()->set_local_path(
      DemoAdapterDir("upper"));
  v1::Adapter adapter;
  ASSERT_TRUE(demo_.adapters().UpdateAdapter(&context, update, &adapter).ok());
  WriteTestFile(absl::StrCat(demo_.state_dir(), "/adapters/",
                             adapter.revision(), "/adapter_config.json"),
                "{");
  v1::SetAliasRequest request = Split({"caesar@1:1", "caesar@3:1"});
  v1::RollbackRule& rule = *request.mutable_alias()->mutable_rollback_rule();
  rule.set_max_error_rate(0.5);
  rule.set_min_requests(3);
  ASSERT_TRUE(Set(request).ok());
  int failed = 0;
  for (int i = 0; i < 40 && Targets().size() > 1; ++i) {
    v1::GenerateRequest generate = TextRequest("task", kPrompt, 2);
    generate.set_routing_key(absl::StrCat(i));
    const Answer answer = demo_.Stream(generate);
    failed += answer.status.ok() ? 0 : 1;
  }
  EXPECT_GE(failed, 3);
  ASSERT_TRUE(Becomes([&] { return Targets().size() == 1; }));
  EXPECT_THAT(Targets(), ElementsAre("caesar@1:1"));
  const v1::AuditEntry entry = Audit().entries(0);
  EXPECT_EQ(entry.action(), "alias.rollback");
  EXPECT_EQ(entry.actor(), "server");
  EXPECT_THAT(entry.reason(), HasSubstr("3 of 3 requests failed"));
  EXPECT_EQ(entry.old_target(), "caesar@1:1 caesar@3:1");
  EXPECT_EQ(entry.new_target(), "caesar@1");
}

TEST_F(RolloutTest, APromotionThatIsTooSlowIsRolledBackByItself) {
  SetLogLevel(LogLevel::kOff);
  v1::SetAliasRequest request = Split({"caesar@1:1", "caesar@2:1"});
  v1::RollbackRule& rule = *request.mutable_alias()->mutable_rollback_rule();
  rule.mutable_max_latency()->set_nanos(1000);  // nothing is that fast
  rule.set_min_requests(5);
  ASSERT_TRUE(Set(request).ok());
  ASSERT_TRUE(Promote().ok());
  for (int i = 0; i < 5; ++i) VersionFor(absl::StrCat(i));
  ASSERT_TRUE(Becomes([&] { return Targets()[0] == "caesar@1:1"; }));
  EXPECT_THAT(Audit().entries(0).reason(),
              HasSubstr("95th percentile of the time to the first token"));
}

TEST_F(RolloutTest, ACandidateThatKeepsItsRuleStays) {
  v1::SetAliasRequest request = Split({"caesar@1:0", "caesar@2:1"});
  v1::RollbackRule& rule = *request.mutable_alias()->mutable_rollback_rule();
  rule.set_max_error_rate(0);
  rule.mutable_max_latency()->set_seconds(3600);
  rule.set_min_requests(1);
  ASSERT_TRUE(Set(request).ok());
  for (int i = 0; i < 5; ++i) EXPECT_EQ(VersionFor(absl::StrCat(i)), 2u);
  ASSERT_TRUE(Becomes([&] { return Get().targets(1).requests() == 5; }));
  EXPECT_EQ(Targets().size(), 2u);
}

// ---- shadows ----------------------------------------------------------------

TEST_F(RolloutTest, AShadowIsComparedAndNeverReturned) {
  ASSERT_TRUE(demo_.Register("same", DemoAdapterDir("caesar")).ok());
  for (const bool is_same : {true, false}) {
    v1::SetAliasRequest request = Split({"caesar@1"});
    v1::AliasShadow& shadow = *request.mutable_alias()->mutable_shadow();
    shadow.set_version(is_same ? "same@1" : "caesar@2");
    shadow.set_share(1);
    ASSERT_TRUE(Set(request).ok());
    for (int i = 0; i < 8; ++i) {
      const Answer answer = demo_.Stream(TextRequest("task", kPrompt));
      EXPECT_EQ(answer.text(), " sduurw");
      EXPECT_EQ(answer.started.adapter_version(), 1u);
    }
    ASSERT_TRUE(Becomes([&] {
      const v1::AliasShadow s = Get().shadow();
      return s.equal() + s.different() + s.failed() + s.skipped() == 8;
    }));
    const v1::AliasShadow counted = Get().shadow();
    EXPECT_EQ(counted.equal(), is_same ? 8u : 0u);
    EXPECT_EQ(counted.different(), is_same ? 0u : 8u);
  }
}

TEST_F(RolloutTest, AShadowIsGivenUpWithItsRequest) {
  v1::SetAliasRequest request = Split({"caesar@1"});
  request.mutable_alias()->mutable_shadow()->set_version("caesar@2");
  request.mutable_alias()->mutable_shadow()->set_share(1);
  ASSERT_TRUE(Set(request).ok());
  {
    grpc::ClientContext context;
    const auto reader =
        demo_.inference().Generate(&context, LongRequest("task", 900));
    v1::GenerateResponse event;
    ASSERT_TRUE(reader->Read(&event));
    context.TryCancel();
    while (reader->Read(&event)) {
    }
    EXPECT_FALSE(reader->Finish().ok());
  }
  EXPECT_TRUE(Becomes([&] { return Get().shadow().skipped() == 1; }));
  EXPECT_TRUE(demo_.BecomesIdle());
}

// ---- the trail --------------------------------------------------------------

TEST_F(RolloutTest, TheTrailNamesThePeer) {
  ASSERT_TRUE(Set(Split({"caesar@1:95", "caesar@2:5"})).ok());
  ASSERT_TRUE(Promote().ok());
  ASSERT_TRUE(RollBack("why not").ok());
  const v1::ListAuditEntriesResponse all = Audit();
  ASSERT_EQ(all.entries_size(), 3);
  EXPECT_EQ(all.entries(0).action(), "alias.rollback");
  EXPECT_EQ(all.entries(0).reason(), "why not");
  EXPECT_EQ(all.entries(1).action(), "alias.promote");
  EXPECT_EQ(all.entries(2).action(), "alias.set");
  for (const v1::AuditEntry& entry : all.entries()) {
    EXPECT_THAT(entry.actor(), StartsWith("ipv4:127.0.0.1:"));
    EXPECT_GT(entry.time().seconds(), 0);
  }
  // The same, page by page.
  const v1::ListAuditEntriesResponse first = Audit(2);
  ASSERT_EQ(first.entries_size(), 2);
  const v1::ListAuditEntriesResponse second = Audit(2, first.next_page_token());
  ASSERT_EQ(second.entries_size(), 1);
  EXPECT_EQ(second.entries(0).id(), all.entries(2).id());
  EXPECT_EQ(second.next_page_token(), "");
}

// ---- bad input --------------------------------------------------------------

TEST_F(RolloutTest, RefusesAliasesThatMeanNothing) {
  const auto invalid = grpc::StatusCode::INVALID_ARGUMENT;
  ExpectError(Set(Split({"caesar@1:0", "caesar@2:0"})), invalid,
              "INVALID_SPLIT");
  ExpectError(Set(Split({"caesar@1:1", "caesar@1:1"})), invalid,
              "INVALID_SPLIT");
  ExpectError(Set(Split({"caesar@1:1", "caesar@2:2000000"})), invalid,
              "INVALID_SPLIT");
  ExpectError(Set(Split({})), invalid, "INVALID_FIELD");
  ExpectError(Set(Split({"caesar@1:1", "caesar@9:1"})),
              grpc::StatusCode::NOT_FOUND, "ADAPTER_NOT_FOUND");
  ASSERT_TRUE(Set(Split({"caesar@1"})).ok());
  v1::SetAliasRequest nested = Split({"task"});
  nested.mutable_alias()->set_name(NameOf("other"));
  ExpectError(Set(nested), invalid, "INVALID_NAME");
  v1::SetAliasRequest shadow = Split({"caesar@1"});
  shadow.mutable_alias()->mutable_shadow()->set_share(0.5);
  ExpectError(Set(shadow), invalid, "INVALID_FIELD");
  shadow.mutable_alias()->mutable_shadow()->set_version("caesar@2");
  shadow.mutable_alias()->mutable_shadow()->set_share(1.5);
  ExpectError(Set(shadow), invalid, "INVALID_SPLIT");
  v1::SetAliasRequest rule = Split({"caesar@1"});
  rule.mutable_alias()->mutable_rollback_rule()->set_min_requests(3);
  ExpectError(Set(rule), invalid, "INVALID_RULE");
  rule.mutable_alias()->mutable_rollback_rule()->set_max_error_rate(1.5);
  ExpectError(Set(rule), invalid, "INVALID_RULE");
  EXPECT_THAT(Targets(), ElementsAre("caesar@1:1"));
}

TEST_F(RolloutTest, RefusesRolloutsOfNothing) {
  const auto not_found = grpc::StatusCode::NOT_FOUND;
  const auto precondition = grpc::StatusCode::FAILED_PRECONDITION;
  ExpectError(Promote(), not_found, "ALIAS_NOT_FOUND");
  ExpectError(RollBack(), not_found, "ALIAS_NOT_FOUND");
  ASSERT_TRUE(Set(Split({"caesar@1"})).ok());
  ExpectError(Promote(), precondition, "ALIAS_NO_CANDIDATE");
  ExpectError(Promote("caesar@9"), not_found, "ADAPTER_NOT_FOUND");
  ExpectError(Promote("caesar@x"), grpc::StatusCode::INVALID_ARGUMENT,
              "INVALID_NAME");
  ExpectError(RollBack(), precondition, "ALIAS_NO_PREVIOUS");
  ExpectError(RollBack("", "12345"), grpc::StatusCode::ABORTED,
              "ETAG_MISMATCH");
  ExpectError(RollBack(std::string(257, 'x')),
              grpc::StatusCode::INVALID_ARGUMENT, "INVALID_FIELD");
  v1::GenerateRequest request = TextRequest("task", kPrompt);
  request.set_routing_key(std::string(257, 'x'));
  ExpectError(demo_.Stream(request).status, grpc::StatusCode::INVALID_ARGUMENT,
              "INVALID_FIELD");
}

// ---- memory -----------------------------------------------------------------

TEST_F(RolloutTest, UnloadSaysHowManyBytesItFreed) {
  ASSERT_TRUE(demo_.Stream(TextRequest("caesar", kPrompt)).status.ok());
  ASSERT_TRUE(demo_.Stream(TextRequest("caesar@1", kPrompt)).status.ok());
  const v1::Load before = demo_.Load();
  ASSERT_GT(before.device_adapter_bytes(), 0u);
  grpc::ClientContext context;
  v1::UnloadAdapterRequest request;
  request.set_name("tenants/default/adapters/caesar");
  v1::Adapter adapter;
  ASSERT_TRUE(demo_.adapters().UnloadAdapter(&context, request, &adapter).ok());
  EXPECT_EQ(adapter.freed_bytes(),
            before.device_adapter_bytes() + before.host_adapter_bytes());
  EXPECT_EQ(demo_.Load().device_adapter_bytes(), 0u);
}

}  // namespace
}  // namespace lorikeet::testing
