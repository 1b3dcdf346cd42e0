// Splits, promotions, roll backs and their trail, through the store.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/numbers.h"
#include "base/reason.h"
#include "tests/adapters/store_fixture.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class AliasStoreTest : public testing::StoreFixture {
 protected:
  AliasStoreTest() {
    for (const float value : {1.f, 2.f, 3.f}) {
      EXPECT_TRUE(Register("a", value, Mode::kCreateOrUpdate).ok());
    }
    EXPECT_TRUE(Register("b", 4).ok());
  }

  // Targets as "a@1:95".
  AdapterStore::AliasRequest Request(const std::vector<std::string>& targets) {
    AdapterStore::AliasRequest r;
    r.tenant = "default";
    r.alias = "t";
    for (const std::string& text : targets) {
      const size_t colon = text.find(':');
      uint32_t weight = 1;
      if (colon != std::string::npos)
        weight = std::stoul(text.substr(colon + 1));
      r.targets.push_back({*AdapterRef::Parse(text.substr(0, colon)), weight});
    }
    return r;
  }
  absl::StatusOr<AliasInfo> Put(const std::vector<std::string>& targets) {
    return store_->PutAlias(Request(targets));
  }
  absl::StatusOr<AliasInfo> Promote(const std::string& target = "",
                                    const Change& change = {}) {
    std::optional<AdapterRef> ref;
    if (!target.empty()) ref = *AdapterRef::Parse(target);
    return store_->PromoteAlias("default", "t", ref, change);
  }
  absl::StatusOr<AliasInfo> RollBack(const Change& change = {}) {
    return store_->RollBackAlias("default", "t", change);
  }
  std::string Targets() {
    const auto info = store_->GetAlias("default", "t");
    return info.ok() ? info->DescribeTargets() : "none";
  }
  AdapterKey RouteOf(const std::string& key) {
    return store_->FindRoute(*AdapterRef::Parse("t"), key)->version->key;
  }
  // "actor action old > new", newest first.
  std::vector<std::string> Trail() {
    std::vector<std::string> lines;
    const auto trail = store_->ReadAudit({"default", "t", 0, 100});
    for (const AuditEntry& e : *trail) {
      lines.push_back(absl::StrCat(e.actor, " ", e.action, " ", e.old_target,
                                   " > ", e.new_target));
    }
    return lines;
  }
};

TEST_F(AliasStoreTest, ASplitSendsEachKeyToOneTarget) {
  ASSERT_TRUE(Put({"a@1:1", "a@2:1"}).ok());
  int seconds = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string key = absl::StrCat(i);
    const uint32_t version = RouteOf(key).version;
    seconds += version == 2;
    EXPECT_EQ(RouteOf(key).version, version);
  }
  EXPECT_NEAR(seconds, 500, 80);  // five standard deviations
  EXPECT_EQ((*Resolve("t"))->key.version, 1u);
}

TEST_F(AliasStoreTest, ASplitSurvivesARestartAndStaysSticky) {
  ASSERT_TRUE(Put({"a@1:3", "a@2:2", "b:1"}).ok());
  std::vector<AdapterKey> before;
  for (int i = 0; i < 100; ++i) before.push_back(RouteOf(absl::StrCat(i)));
  Open();
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(RouteOf(absl::StrCat(i)), before[static_cast<size_t>(i)]);
  }
  EXPECT_EQ(Targets(), "a@1:3 a@2:2 b@1:1");
}

TEST_F(AliasStoreTest, PromotionAndRollBackAreOneStepEach) {
  ASSERT_TRUE(Put({"a@1:95", "a@2:5"}).ok());
  ASSERT_TRUE(Promote().ok());
  EXPECT_EQ(Targets(), "a@2");
  Open();  // and durable
  EXPECT_EQ(Targets(), "a@2");
  ASSERT_TRUE(RollBack().ok());
  EXPECT_EQ(Targets(), "a@1");
  EXPECT_EQ(ReasonOf(RollBack().status()), "ALIAS_NO_PREVIOUS");
  ASSERT_TRUE(Promote("b").ok());
  EXPECT_EQ(Targets(), "b@1");
  ASSERT_TRUE(RollBack().ok());
  EXPECT_EQ(Targets(), "a@1");
}

TEST_F(AliasStoreTest, RollBackGivesUpACanaryAndItsShadow) {
  auto r = Request({"a@1:95", "a@2:5"});
  r.shadow = {*AdapterRef::Parse("a@3"), 0.5};
  ASSERT_TRUE(store_->PutAlias(r).ok());
  EXPECT_EQ(Targets(), "a@1:95 a@2:5 shadow a@3:0.5");
  ASSERT_TRUE(RollBack().ok());
  EXPECT_EQ(Targets(), "a@1");
}

TEST_F(AliasStoreTest, AShadowComesWithTheRouteOfItsShare) {
  auto r = Request({"a@1"});
  r.shadow = {*AdapterRef::Parse("b"), 0.5};
  ASSERT_TRUE(store_->PutAlias(r).ok());
  int shadows = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto route =
        store_->FindRoute(*AdapterRef::Parse("t"), absl::StrCat(i));
    ASSERT_TRUE(route.ok());
    EXPECT_EQ(route->version->key.name, "a");
    EXPECT_EQ(route->alias, "t");
    if (route->shadow == nullptr) continue;
    EXPECT_EQ(route->shadow->key.name, "b");
    ++shadows;
  }
  EXPECT_NEAR(shadows, 500, 80);
}

TEST_F(AliasStoreTest, OnlyCandidatesAreJudgedByTheRule) {
  auto r = Request({"a@1:0", "a@2:1"});
  r.rule = RollbackRule{.max_error_rate = 0.1};
  ASSERT_TRUE(store_->PutAlias(r).ok());
  const AdapterRef ref = *AdapterRef::Parse("t");
  EXPECT_FALSE(store_->FindRoute(ref, "")->rule.has_value());
  EXPECT_TRUE(store_->FindRoute(ref, "x")->rule.has_value());
  // After its promotion it is still on probation, after a roll back nobody is.
  ASSERT_TRUE(Promote().ok());
  EXPECT_TRUE(store_->FindRoute(ref, "x")->rule.has_value());
  ASSERT_TRUE(RollBack().ok());
  EXPECT_FALSE(store_->FindRoute(ref, "x")->rule.has_value());
}

TEST_F(AliasStoreTest, RefusesWhatCannotBeMeant) {
  EXPECT_EQ(ReasonOf(Put({"a@1:0", "a@2:0"}).status()), "INVALID_SPLIT");
  EXPECT_EQ(ReasonOf(Put({"a@3", "a"}).status()), "INVALID_SPLIT");
  const absl::Status unknown = Put({"a@1", "a@9"}).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("no version 9"));
  ASSERT_TRUE(Put({"a@1"}).ok());
  auto r = Request({"a@1:1", "t:1"});
  r.alias = "u";
  const absl::Status nested = store_->PutAlias(r).status();
  EXPECT_EQ(nested.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(nested.message()), HasSubstr("alias \"t\""));
  r = Request({"a@1"});
  r.alias = "u";
  r.shadow = {*AdapterRef::Parse("t"), 0.5};
  EXPECT_EQ(store_->PutAlias(r).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(AliasStoreTest, RefusesToPromoteWhatDoesNotExist) {
  EXPECT_EQ(ReasonOf(Promote().status()), "ALIAS_NOT_FOUND");
  EXPECT_EQ(ReasonOf(RollBack().status()), "ALIAS_NOT_FOUND");
  ASSERT_TRUE(Put({"a@1"}).ok());
  EXPECT_EQ(ReasonOf(Promote().status()), "ALIAS_NO_CANDIDATE");
  EXPECT_EQ(ReasonOf(Promote("a@9").status()), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(ReasonOf(Promote("c").status()), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(Promote("t").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Targets(), "a@1");
}

TEST_F(AliasStoreTest, AnEtagGuardsEveryChange) {
  const uint64_t etag = Put({"a@1:1", "a@2:1"})->etag;
  EXPECT_EQ(ReasonOf(Promote("", {etag + 1}).status()), "ETAG_MISMATCH");
  EXPECT_EQ(ReasonOf(RollBack({etag + 1}).status()), "ETAG_MISMATCH");
  EXPECT_EQ(ReasonOf(store_->DeleteAlias("default", "t", {etag + 1})),
            "ETAG_MISMATCH");
  EXPECT_TRUE(Promote("", {etag}).ok());
}

TEST_F(AliasStoreTest, DeletingAnAdapterTakesItOutOfSplits) {
  ASSERT_TRUE(Put({"a@1:95", "b@1:5"}).ok());
  ASSERT_TRUE(Delete("b").ok());
  EXPECT_EQ(Targets(), "a@1");
  Open();
  EXPECT_EQ(Targets(), "a@1");
  ASSERT_TRUE(Delete("a").ok());
  EXPECT_EQ(Targets(), "none");
}

TEST_F(AliasStoreTest, TheTrailTellsWhoChangedWhat) {
  auto r = Request({"a@1:95", "a@2:5"});
  r.change.actor = "ipv4:10.0.0.7:5";
  ASSERT_TRUE(store_->PutAlias(r).ok());
  ASSERT_TRUE(store_->PutAlias(r).ok());  // nothing to do, nothing to tell
  ASSERT_TRUE(Promote("", {std::nullopt, "ada"}).ok());
  ASSERT_TRUE(RollBack({std::nullopt, "server", "too slow"}).ok());
  ASSERT_TRUE(store_->DeleteAlias("default", "t", {}).ok());
  EXPECT_THAT(
      Trail(),
      ElementsAre("cli alias.delete a@1 > ", "server alias.rollback a@2 > a@1",
                  "ada alias.promote a@1:95 a@2:5 > a@2",
                  "ipv4:10.0.0.7:5 alias.set  > a@1:95 a@2:5"));
  EXPECT_EQ((*store_->ReadAudit({"default", "t", 0, 2}))[1].reason, "too slow");
  const auto of_a = store_->ReadAudit({"default", "a", 0, 100});
  ASSERT_EQ(of_a->size(), 3u);
  EXPECT_EQ(of_a->back().action, "register");
  EXPECT_EQ(of_a->front().action, "update");
  EXPECT_EQ(of_a->front().old_target, "a@2");
  EXPECT_EQ(of_a->front().new_target, "a@3");
}

TEST_F(AliasStoreTest, TheTrailNamesWhoDeletedAnAdapter) {
  ASSERT_TRUE(store_->BeginDelete("default", "b", {std::nullopt, "eve"}).ok());
  ASSERT_TRUE(store_->FinishDelete("default", "b").ok());
  const auto trail = store_->ReadAudit({"default", "b", 0, 1});
  EXPECT_EQ((*trail)[0].action, "delete");
  EXPECT_EQ((*trail)[0].actor, "eve");
  EXPECT_EQ((*trail)[0].old_target, "b@1");
}

// ---- retention --------------------------------------------------------------

class RetentionTest : public testing::StoreFixture {
 protected:
  void Keep(int versions) {
    options_.version_retention = versions;
    Open();
  }
  std::vector<uint32_t> Versions() {
    std::vector<uint32_t> numbers;
    const auto versions = store_->ListVersions("default", "a");
    for (const auto& info : *versions) {
      numbers.push_back(info.key.version);
    }
    return numbers;
  }
  void Update(float value) {
    ASSERT_TRUE(Register("a", value, Mode::kCreateOrUpdate).ok());
  }
};

TEST_F(RetentionTest, KeepsAllVersionsUnlessTold) {
  for (const float value : {1.f, 2.f, 3.f}) Update(value);
  EXPECT_THAT(Versions(), ElementsAre(3, 2, 1));
}

TEST_F(RetentionTest, OldVersionsGoWithTheirFilesAndMemory) {
  Keep(2);
  for (const float value : {1.f, 2.f}) Update(value);
  ASSERT_TRUE(
      store_->LoadTo("default", "a", Tier::kDevice, {}, absl::Minutes(1)).ok());
  Update(3);
  EXPECT_THAT(Versions(), ElementsAre(3, 2));
  Update(4);
  EXPECT_THAT(Versions(), ElementsAre(4, 3));
  EXPECT_EQ(Stored().size(), 2u);
  EXPECT_EQ(ops_.live, 0);
  EXPECT_EQ(Resolve("a@1").status().code(), absl::StatusCode::kNotFound);
  Open();
  EXPECT_THAT(Versions(), ElementsAre(4, 3));
  Update(5);  // numbers go on
  EXPECT_THAT(Versions(), ElementsAre(5, 4));
}

TEST_F(RetentionTest, WhatIsUsedOrNamedStays) {
  Keep(1);
  Update(1);
  ASSERT_TRUE(
      store_->SetAlias("default", "t", *AdapterRef::Parse("a@1"), {}).ok());
  Update(2);
  absl::StatusOr<VersionRef> request = Resolve("a@2");
  ASSERT_TRUE(request.ok());
  Update(3);
  EXPECT_THAT(Versions(), ElementsAre(3, 2, 1));
  request = absl::CancelledError();
  // The alias' previous target is kept for its roll back.
  ASSERT_TRUE(
      store_->SetAlias("default", "t", *AdapterRef::Parse("a@3"), {}).ok());
  Update(4);
  EXPECT_THAT(Versions(), ElementsAre(4, 3, 1));
  ASSERT_TRUE(store_->DeleteAlias("default", "t", {}).ok());
  Update(5);
  EXPECT_THAT(Versions(), ElementsAre(5));
}

TEST_F(RetentionTest, APinFollowsTheOnlyVersionThatStays) {
  Keep(1);
  Update(1);
  ASSERT_TRUE(
      store_->LoadTo("default", "a", Tier::kDevice, true, absl::Minutes(1))
          .ok());
  Update(2);
  EXPECT_THAT(Versions(), ElementsAre(2));
  EXPECT_TRUE(store_->Get("default", "a")->pinned);
  ASSERT_TRUE(
      store_->LoadTo("default", "a", Tier::kDevice, {}, absl::Minutes(1)).ok());
  EXPECT_EQ(ops_.live, 2);  // both layers of the one version
}

TEST_F(RetentionTest, TheTrailTellsWhatWasRetired) {
  Keep(1);
  Update(1);
  Update(2);
  const auto trail = store_->ReadAudit({"default", "a", 0, 2});
  EXPECT_EQ((*trail)[0].action, "update");
  EXPECT_EQ((*trail)[1].action, "retire");
  EXPECT_EQ((*trail)[1].old_target, "a@1");
}

}  // namespace
}  // namespace lorikeet
