#include "adapters/adapter_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "adapters/peft_reader.h"
#include "base/background_queue.h"
#include "base/reason.h"
#include "tests/adapters/fake_ops.h"
#include "tests/adapters/store_fixture.h"
#include "tests/adapters/test_adapter.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

namespace stdfs = std::filesystem;
using ::testing::ElementsAre;
using testing::FakeOps;
using ::testing::HasSubstr;
using testing::SmallBase;
using testing::WriteAdapter;

constexpr absl::Duration kLong = absl::Seconds(60);
// Of WriteAdapter: 64 values of 4 bytes.
constexpr int64_t kAdapterBytes = 256;

class AdapterStoreTest : public testing::StoreFixture {};

// ---- registration -----------------------------------------------------------

TEST_F(AdapterStoreTest, RegistersAndTellsWhatItFound) {
  const auto info = Register("a", 1);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->tenant, "default");
  EXPECT_EQ(info->name, "a");
  EXPECT_EQ(info->uid.size(), 32u);
  EXPECT_EQ(info->state, AdapterState::kActive);
  EXPECT_EQ(info->tier, Tier::kDisk);
  EXPECT_EQ(info->newest.key.version, 1u);
  EXPECT_EQ(info->newest.max_rank, 2);
  EXPECT_EQ(info->newest.alpha, 4);
  EXPECT_THAT(info->newest.target_modules, ElementsAre("q_proj"));
  ASSERT_EQ(info->newest.modules.size(), 2u);
  EXPECT_EQ(info->newest.modules[0].scaling, 2);
  EXPECT_GT(info->newest.size_bytes, kAdapterBytes);
  EXPECT_THAT(Stored(), ElementsAre(info->newest.key.digest.ToHex()));
}

TEST_F(AdapterStoreTest, InEightBitsTellsTheErrorAtRegistration) {
  options_.dtype = DType::kI8;
  Open();
  const auto info = Register("a", 0.3f);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_THAT(info->newest.warnings,
              ElementsAre(HasSubstr("in 8 bits change the update by")));
}

TEST_F(AdapterStoreTest, APageHasTheNextNames) {
  for (const char* name : {"c", "a", "b", "d"}) {
    ASSERT_TRUE(Register(name, static_cast<float>(name[0] - 'a' + 1)).ok());
  }
  const auto names = [&](const std::string& after, int64_t limit) {
    const auto page = store_->ListPage("default", after, limit);
    EXPECT_EQ(page.total, 4);
    std::string all;
    for (const AdapterInfo& info : page.adapters) all += info.name;
    return all;
  };
  EXPECT_EQ(names("", 3), "abc");
  EXPECT_EQ(names("c", 3), "d");
  EXPECT_EQ(names("bb", 1), "c");
  EXPECT_EQ(names("d", 3), "");
  EXPECT_EQ(store_->ListPage("nobody", "", 3).total, 0);
}

TEST_F(AdapterStoreTest, SurvivesRestart) {
  const auto a = Register("a", 1);
  ASSERT_TRUE(Register("a", 2, Mode::kUpdate).ok());
  ASSERT_TRUE(
      store_->SetAlias("default", "task", *AdapterRef::Parse("a@1"), {}).ok());
  ASSERT_TRUE(
      store_->UpdateMetadata("default", "a", "A", {{{"k", "v"}}}, {}).ok());
  const auto before = store_->Get("default", "a");
  Open();
  const auto after = store_->Get("default", "a");
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->uid, before->uid);
  EXPECT_EQ(after->etag, before->etag);
  EXPECT_EQ(after->display_name, "A");
  EXPECT_EQ(after->labels, before->labels);
  EXPECT_EQ(after->newest.key, before->newest.key);
  EXPECT_EQ(after->create_time, before->create_time);
  EXPECT_EQ(store_->ListVersions("default", "a")->size(), 2u);
  EXPECT_EQ((*Resolve("task"))->key, a->newest.key);
  ASSERT_TRUE(store_->LoadTo("default", "a", Tier::kDevice, {}, kLong).ok());
}

TEST_F(AdapterStoreTest, CreateRefusesATakenName) {
  ASSERT_TRUE(Register("a", 1).ok());
  for (const float value : {1.f, 2.f}) {
    const auto again = Register("a", value);
    EXPECT_EQ(again.status().code(), absl::StatusCode::kAlreadyExists);
    EXPECT_EQ(ReasonOf(again.status()), "ADAPTER_EXISTS");
  }
}

TEST_F(AdapterStoreTest, UpdateNeedsTheAdapterUnlessAskedToCreate) {
  EXPECT_EQ(Register("a", 1, Mode::kUpdate).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_TRUE(Register("a", 1, Mode::kCreateOrUpdate).ok());
  const auto second = Register("a", 2, Mode::kCreateOrUpdate);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->newest.key.version, 2u);
}

TEST_F(AdapterStoreTest, UpdateWithTheSameContentIsNothingToDo) {
  const auto first = Register("a", 1);
  const auto same = Register("a", 1, Mode::kUpdate);
  ASSERT_TRUE(same.ok());
  EXPECT_EQ(same->newest.key, first->newest.key);
  EXPECT_EQ(same->etag, first->etag);
  // Back to an older content is a version of its own.
  ASSERT_TRUE(Register("a", 2, Mode::kUpdate).ok());
  EXPECT_EQ(Register("a", 1, Mode::kUpdate)->newest.key.version, 3u);
  EXPECT_EQ(Stored().size(), 2u);
}

TEST_F(AdapterStoreTest, EtagGuardsAnUpdate) {
  const auto first = Register("a", 1);
  AdapterStore::RegisterRequest r;
  r.name = "a";
  r.path = Source("x", 2);
  r.mode = Mode::kUpdate;
  r.etag = first->etag + 1;
  const auto refused = store_->Register(r);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ReasonOf(refused.status()), "ETAG_MISMATCH");
  r.etag = first->etag;
  const auto second = store_->Register(r);
  ASSERT_TRUE(second.ok());
  EXPECT_NE(second->etag, first->etag);
}

TEST_F(AdapterStoreTest, ValidateOnlyChangesNothing) {
  AdapterStore::RegisterRequest r;
  r.name = "a";
  r.path = Source("x", 1);
  r.validate_only = true;
  const auto info = store_->Register(r);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->newest.key.version, 1u);
  EXPECT_EQ(info->newest.modules.size(), 2u);
  EXPECT_TRUE(store_->ListAll("default").empty());
  EXPECT_TRUE(Stored().empty());
}

TEST_F(AdapterStoreTest, ChecksTheExpectedDigest) {
  AdapterStore::RegisterRequest r;
  r.name = "a";
  r.path = Source("x", 1);
  r.expected_sha256 = std::string(64, '0');
  EXPECT_EQ(ReasonOf(store_->Register(r).status()), "DIGEST_MISMATCH");
  r.expected_sha256 = DigestOfAdapter(fs_, r.path, PeftLimits())->ToHex();
  EXPECT_TRUE(store_->Register(r).ok());
}

TEST_F(AdapterStoreTest, RefusesABadAdapterAndStoresNothing) {
  AdapterStore::RegisterRequest r;
  r.name = "a";
  r.path = WriteAdapter(options_.roots[0] + "/bd", 1, R"("use_bdlora": {})");
  const auto refused = store_->Register(r);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(ReasonOf(refused.status()), "ADAPTER_UNSUPPORTED");
  EXPECT_TRUE(Stored().empty());
  EXPECT_TRUE(stdfs::is_empty(options_.state_dir + "/tmp"));
}

TEST_F(AdapterStoreTest, KnowsTheFeaturesOfAVersionAfterARestart) {
  AdapterStore::RegisterRequest r;
  r.name = "a";
  r.path = WriteAdapter(options_.roots[0] + "/alora", 1,
                        R"("alora_invocation_tokens": [3, 1])");
  ASSERT_TRUE(store_->Register(r).ok());
  Open();
  const auto version = Resolve("a");
  ASSERT_TRUE(version.ok()) << version.status();
  EXPECT_EQ((*version)->features.keys,
            std::vector<std::string>{"alora_invocation_tokens"});
  EXPECT_EQ((*version)->features.invocation_tokens, (std::vector<Token>{3, 1}));
}

TEST_F(AdapterStoreTest, RefusesBadNamesAndMetadata) {
  for (const std::string name : {"", "../x", "a b", "-"}) {
    AdapterStore::RegisterRequest r;
    r.name = name;
    r.path = Source("x", 1);
    EXPECT_EQ(store_->Register(r).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  AdapterStore::RegisterRequest r;
  r.name = "a";
  r.path = Source("x", 1);
  r.labels = {{"k", "1"}, {"k", "2"}};
  EXPECT_EQ(ReasonOf(store_->Register(r).status()), "INVALID_METADATA");
  r.labels.clear();
  r.display_name = std::string(64, 'x');
  EXPECT_EQ(ReasonOf(store_->Register(r).status()), "INVALID_METADATA");
}

// ---- paths ------------------------------------------------------------------

TEST_F(AdapterStoreTest, RefusesPathsOutsideTheRoots) {
  const std::string outside = WriteAdapter(root_ + "/outside", 1);
  const std::string sibling = WriteAdapter(root_ + "/allowed2/x", 1);
  stdfs::create_symlink(outside, options_.roots[0] + "/link");
  Source("inside", 1);
  for (const std::string& path :
       {outside, sibling, options_.roots[0] + "/link",
        options_.roots[0] + "/../outside", std::string("/nowhere/x"),
        options_.roots[0] + "/../nowhere", std::string("relative")}) {
    AdapterStore::RegisterRequest r;
    r.name = "a";
    r.path = path;
    const auto refused = store_->Register(r);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kPermissionDenied)
        << path << ": " << refused.status();
    EXPECT_EQ(ReasonOf(refused.status()), "PATH_NOT_ALLOWED");
  }
  AdapterStore::RegisterRequest r;
  r.name = "a";
  r.path = options_.roots[0] + "/missing";
  EXPECT_EQ(store_->Register(r).status().code(), absl::StatusCode::kNotFound);
  r.path = outside;
  r.trusted_path = true;
  EXPECT_TRUE(store_->Register(r).ok());
}

TEST_F(AdapterStoreTest, RefusesFilesThatAreLinksOutOfTheRoots) {
  const std::string outside = WriteAdapter(root_ + "/outside", 1);
  const std::string inside = Source("inside", 1);
  for (const absl::string_view file : {kAdapterConfigFile, kAdapterModelFile}) {
    const std::string path = JoinPath(inside, file);
    stdfs::rename(path, path + ".kept");
    stdfs::create_symlink(JoinPath(outside, file), path);
    AdapterStore::RegisterRequest r;
    r.name = "a";
    r.path = inside;
    EXPECT_EQ(store_->Register(r).status().code(),
              absl::StatusCode::kPermissionDenied);
    stdfs::remove(path);
    stdfs::rename(path + ".kept", path);
  }
  // A link that stays inside is how a download cache looks.
  const std::string blobs = options_.roots[0] + "/blobs";
  stdfs::create_directories(blobs);
  const std::string model = JoinPath(inside, kAdapterModelFile);
  stdfs::rename(model, blobs + "/b1");
  stdfs::create_symlink(blobs + "/b1", model);
  AdapterStore::RegisterRequest r;
  r.name = "a";
  r.path = inside;
  EXPECT_TRUE(store_->Register(r).ok());
}

TEST_F(AdapterStoreTest, RefusesWhatIsNoRegularFile) {
  const std::string inside = Source("inside", 1);
  const std::string model = JoinPath(inside, kAdapterModelFile);
  stdfs::remove(model);
  stdfs::create_directory(model);
  AdapterStore::RegisterRequest r;
  r.name = "a";
  r.path = inside;
  const auto refused = store_->Register(r);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("adapter_model.safetensors"));
}

TEST_F(AdapterStoreTest, RegistersAnUploadAndRemovesIt) {
  for (const bool good : {true, false}) {
    const auto upload = store_->NewUploadDir();
    ASSERT_TRUE(upload.ok());
    WriteAdapter(*upload, 1, good ? "" : R"("use_dora": true)");
    AdapterStore::RegisterRequest r;
    r.name = "a";
    r.upload_dir = *upload;
    r.mode = Mode::kCreateOrUpdate;
    const auto info = store_->Register(r);
    EXPECT_EQ(info.ok(), good) << info.status();
    EXPECT_EQ(info.ok() ? info->source_path : "", "");
    EXPECT_FALSE(fs_.FileExists(*upload));
  }
  AdapterStore::RegisterRequest r;
  r.name = "b";
  r.upload_dir = Source("x", 1);
  EXPECT_FALSE(store_->Register(r).ok());
  EXPECT_TRUE(fs_.FileExists(r.upload_dir));
}

// ---- names ------------------------------------------------------------------

TEST_F(AdapterStoreTest, ResolvesNamesVersionsDigestsAndAliases) {
  const AdapterKey one = Register("a", 1)->newest.key;
  const AdapterKey two = Register("a", 2, Mode::kUpdate)->newest.key;
  ASSERT_TRUE(
      store_->SetAlias("default", "task", *AdapterRef::Parse("a@1"), {}).ok());
  EXPECT_EQ((*Resolve("a"))->key, two);
  EXPECT_EQ((*Resolve("a@1"))->key, one);
  EXPECT_EQ((*Resolve("default/a@2"))->key, two);
  EXPECT_EQ((*Resolve("task"))->key, one);
  EXPECT_EQ((*Resolve("a@sha256:" + one.digest.ToShortHex()))->key, one);
  EXPECT_EQ((*Resolve("a@sha256:" + one.digest.ToHex()))->key, one);
  for (const std::string text :
       {"b", "a@3", "a@sha256:000000000000", "acme/a"}) {
    const auto missing = Resolve(text);
    EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound) << text;
    EXPECT_EQ(ReasonOf(missing.status()), "ADAPTER_NOT_FOUND");
  }
  EXPECT_EQ(Resolve("task@2").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(AdapterStoreTest, AnAliasStaysWhereItIsUntilItIsMoved) {
  const AdapterKey one = Register("a", 1)->newest.key;
  const auto alias =
      store_->SetAlias("default", "task", *AdapterRef::Parse("a"), {});
  ASSERT_TRUE(alias.ok());
  EXPECT_EQ(alias->target, one);
  const AdapterKey two = Register("a", 2, Mode::kUpdate)->newest.key;
  EXPECT_EQ((*Resolve("task"))->key, one);
  EXPECT_EQ(store_
                ->SetAlias("default", "task", *AdapterRef::Parse("a"),
                           alias->etag + 1)
                .status()
                .code(),
            absl::StatusCode::kAborted);
  const auto moved =
      store_->SetAlias("default", "task", *AdapterRef::Parse("a"), alias->etag);
  ASSERT_TRUE(moved.ok());
  EXPECT_NE(moved->etag, alias->etag);
  EXPECT_EQ((*Resolve("task"))->key, two);
  EXPECT_EQ(store_->ListAliases("default").size(), 1u);
  EXPECT_TRUE(store_->ListAliases("acme").empty());
}

TEST_F(AdapterStoreTest, AliasesAndAdaptersShareTheirNames) {
  ASSERT_TRUE(Register("a", 1).ok());
  ASSERT_TRUE(Register("b", 1).ok());
  ASSERT_TRUE(
      store_->SetAlias("default", "t", *AdapterRef::Parse("a"), {}).ok());
  EXPECT_EQ(store_->SetAlias("default", "b", *AdapterRef::Parse("a"), {})
                .status()
                .code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Register("t", 1, Mode::kCreateOrUpdate).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(store_->SetAlias("default", "u", *AdapterRef::Parse("t"), {})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->SetAlias("default", "u", *AdapterRef::Parse("x/a"), {})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(store_->DeleteAlias("default", "u", {})),
            "ALIAS_NOT_FOUND");
  EXPECT_TRUE(store_->DeleteAlias("default", "t", {}).ok());
  EXPECT_EQ(ReasonOf(store_->GetAlias("default", "t").status()),
            "ALIAS_NOT_FOUND");
  EXPECT_TRUE(Register("t", 1).ok());
}

TEST_F(AdapterStoreTest, TenantsDoNotSeeEachOther) {
  AdapterStore::RegisterRequest r;
  r.tenant = "acme";
  r.name = "a";
  r.path = Source("x", 1);
  ASSERT_TRUE(store_->Register(r).ok());
  ASSERT_TRUE(Register("a", 2).ok());
  EXPECT_EQ(store_->ListAll("acme").size(), 1u);
  EXPECT_NE((*Resolve("acme/a"))->key.digest, (*Resolve("a"))->key.digest);
  ASSERT_TRUE(Delete("a").ok());
  EXPECT_TRUE(Resolve("acme/a").ok());
}

// ---- deletion ---------------------------------------------------------------

TEST_F(AdapterStoreTest, DeletionWaitsForRequests) {
  ASSERT_TRUE(Register("a", 1).ok());
  auto ref = Resolve("a");
  ASSERT_TRUE(ref.ok());
  VersionRef copy = *ref;
  EXPECT_EQ(store_->Get("default", "a")->active_requests, 1);
  ASSERT_TRUE(store_->BeginDelete("default", "a", {}).ok());
  EXPECT_EQ(store_->Get("default", "a")->state, AdapterState::kDraining);
  EXPECT_EQ(Resolve("a").status().code(), absl::StatusCode::kNotFound);
  absl::Status status = store_->FinishDelete("default", "a");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(status), "ADAPTER_IN_USE");
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 request"));
  store_->CancelDelete("default", "a");
  EXPECT_TRUE(Resolve("a").ok());
  ASSERT_TRUE(store_->BeginDelete("default", "a", {}).ok());
  ref = absl::CancelledError();
  EXPECT_FALSE(store_->FinishDelete("default", "a").ok());
  copy.reset();
  EXPECT_TRUE(store_->FinishDelete("default", "a").ok());
  EXPECT_EQ(store_->Get("default", "a").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(AdapterStoreTest, DeletionFreesEverything) {
  ASSERT_TRUE(Register("a", 1).ok());
  ASSERT_TRUE(Register("a", 2, Mode::kUpdate).ok());
  ASSERT_TRUE(
      store_->SetAlias("default", "task", *AdapterRef::Parse("a@1"), {}).ok());
  ASSERT_TRUE(store_->LoadTo("default", "a", Tier::kDevice, true, kLong).ok());
  ASSERT_TRUE(Delete("a").ok());
  EXPECT_TRUE(Stored().empty());
  EXPECT_EQ(ops_.live, 0);
  EXPECT_EQ(store_->GetResidency().host_bytes, 0);
  EXPECT_EQ(store_->GetResidency().device_bytes, 0);
  EXPECT_EQ(Resolve("task").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(store_->ListAliases("default").empty());
  Open();
  EXPECT_TRUE(store_->ListAll("default").empty());
}

TEST_F(AdapterStoreTest, DeletionKeepsContentThatOthersShare) {
  ASSERT_TRUE(Register("a", 1).ok());
  ASSERT_TRUE(Register("b", 1).ok());
  EXPECT_EQ(Stored().size(), 1u);
  ASSERT_TRUE(Delete("a").ok());
  EXPECT_EQ(Stored().size(), 1u);
  EXPECT_TRUE(store_->LoadTo("default", "b", Tier::kDevice, {}, kLong).ok());
  ASSERT_TRUE(Delete("b").ok());
  EXPECT_TRUE(Stored().empty());
}

TEST_F(AdapterStoreTest, ARecreatedNameIsAnotherAdapter) {
  const auto first = Register("a", 1);
  ASSERT_TRUE(Delete("a").ok());
  const auto second = Register("a", 1);
  ASSERT_TRUE(second.ok());
  EXPECT_NE(first->uid, second->uid);
  EXPECT_NE(first->etag, second->etag);
}

TEST_F(AdapterStoreTest, ADrainingAdapterTakesNoVersions) {
  ASSERT_TRUE(Register("a", 1).ok());
  ASSERT_TRUE(store_->BeginDelete("default", "a", {}).ok());
  EXPECT_EQ(ReasonOf(Register("a", 2, Mode::kUpdate).status()),
            "ADAPTER_DRAINING");
  EXPECT_EQ(Register("a", 2).status().code(), absl::StatusCode::kAlreadyExists);
}

// ---- residency --------------------------------------------------------------

TEST_F(AdapterStoreTest, PrefetchBringsAVersionToTheDevice) {
  ASSERT_TRUE(Register("a", 1).ok());
  const auto ref = Resolve("a");
  EXPECT_FALSE(store_->TryLease((*ref)->key));
  store_->Prefetch((*ref)->key);
  // LoadTo joins the load that runs.
  ASSERT_TRUE(store_->LoadTo("default", "a", Tier::kDevice, {}, kLong).ok());
  const DeviceLease lease = store_->TryLease((*ref)->key);
  ASSERT_TRUE(lease);
  EXPECT_NE(lease.slot()->Find({1, Projection::kQ}), nullptr);
  EXPECT_EQ(store_->GetResidency().loads, 1);
  EXPECT_EQ(store_->Get("default", "a")->tier, Tier::kDevice);
}

TEST_F(AdapterStoreTest, RunningRequestsKeepTheirVersionThroughAnUpdate) {
  ASSERT_TRUE(Register("a", 1).ok());
  const auto old_ref = Resolve("a");
  ASSERT_TRUE(store_->LoadTo("default", "a", Tier::kDevice, {}, kLong).ok());
  const DeviceLease old_lease = store_->TryLease((*old_ref)->key);
  ASSERT_TRUE(Register("a", 2, Mode::kUpdate).ok());
  const auto new_ref = Resolve("a");
  EXPECT_EQ((*new_ref)->key.version, 2u);
  ASSERT_TRUE(store_->LoadTo("default", "a", Tier::kDevice, {}, kLong).ok());
  const DeviceLease new_lease = store_->TryLease((*new_ref)->key);
  const auto value = [](const DeviceLease& lease) {
    return static_cast<const FakeOps::Packed&>(
               *lease.slot()->Find({0, Projection::kQ})->weights)
        .a()[0];
  };
  EXPECT_EQ(value(old_lease), 1.f);
  EXPECT_EQ(value(new_lease), 2.f);
  EXPECT_EQ(store_->Get("default", "a")->active_requests, 2);
}

TEST_F(AdapterStoreTest, UnloadRefusesWhatIsInUseOrPinned) {
  ASSERT_TRUE(Register("a", 1).ok());
  ASSERT_TRUE(store_->LoadTo("default", "a", Tier::kDevice, true, kLong).ok());
  EXPECT_TRUE(store_->Get("default", "a")->pinned);
  EXPECT_EQ(ReasonOf(store_->UnloadTo("default", "a", Tier::kDisk).status()),
            "ADAPTER_PINNED");
  ASSERT_TRUE(store_->SetPinned("default", "a", false).ok());
  {
    const auto ref = Resolve("a");
    EXPECT_EQ(ReasonOf(store_->UnloadTo("default", "a", Tier::kDisk).status()),
              "ADAPTER_IN_USE");
  }
  EXPECT_EQ(*store_->UnloadTo("default", "a", Tier::kHost), kAdapterBytes);
  EXPECT_EQ(*store_->UnloadTo("default", "a", Tier::kDisk), kAdapterBytes);
  EXPECT_EQ(*store_->UnloadTo("default", "a", Tier::kDisk), 0);
  EXPECT_EQ(ops_.live, 0);
}

TEST_F(AdapterStoreTest, PinnedAdaptersStayAndOthersAreRefused) {
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_TRUE(Register(name, 1).ok());
  }
  for (const char* name : {"a", "b"}) {
    ASSERT_TRUE(
        store_->LoadTo("default", name, Tier::kDevice, true, kLong).ok());
  }
  const absl::Status status =
      store_->LoadTo("default", "c", Tier::kDevice, true, kLong);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "DEVICE_FULL");
  EXPECT_FALSE(store_->Get("default", "c")->pinned);
  EXPECT_EQ(store_->Get("default", "a")->tier, Tier::kDevice);
  EXPECT_EQ(store_->Get("default", "b")->tier, Tier::kDevice);
}

TEST_F(AdapterStoreTest, APinFollowsTheNewestVersion) {
  ASSERT_TRUE(Register("a", 1).ok());
  ASSERT_TRUE(store_->LoadTo("default", "a", Tier::kDevice, true, kLong).ok());
  ASSERT_TRUE(Register("a", 2, Mode::kUpdate).ok());
  ASSERT_TRUE(store_->LoadTo("default", "a", Tier::kDevice, {}, kLong).ok());
  for (const char* name : {"b", "c"}) {
    ASSERT_TRUE(Register(name, 1).ok());
    ASSERT_TRUE(store_->LoadTo("default", name, Tier::kDevice, {}, kLong).ok());
  }
  EXPECT_EQ(store_->Get("default", "a")->tier, Tier::kDevice);
  // And comes back with the server.
  Open();
  ASSERT_TRUE(store_->LoadTo("default", "a", Tier::kDevice, {}, kLong).ok());
  EXPECT_TRUE(store_->Get("default", "a")->pinned);
}

TEST_F(AdapterStoreTest, DamagedFilesAreNeverServed) {
  const auto info = Register("a", 1);
  const std::string stored =
      options_.state_dir + "/adapters/" + info->newest.key.digest.ToHex();
  // Another good adapter, but not the one that was registered.
  WriteAdapter(stored, 5);
  const auto ref = Resolve("a");
  EXPECT_EQ(ReasonOf(store_->LoadTo("default", "a", Tier::kDevice, {}, kLong)),
            "ADAPTER_DAMAGED");
  EXPECT_EQ(store_->LoadError((*ref)->key).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(store_->Get("default", "a")->state, AdapterState::kFailed);
  EXPECT_FALSE(store_->TryLease((*ref)->key));
}

TEST_F(AdapterStoreTest, AdaptersOfAnotherBaseAreListedAndNotServed) {
  ASSERT_TRUE(Register("a", 1).ok());
  Open(/*base=*/2);
  ASSERT_EQ(store_->ListAll("default").size(), 1u);
  EXPECT_EQ(store_->ListAll("default")[0].state, AdapterState::kIncompatible);
  const auto ref = Resolve("a");
  EXPECT_EQ(ref.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(ref.status()), "ADAPTER_INCOMPATIBLE");
  EXPECT_EQ(ReasonOf(store_->LoadTo("default", "a", Tier::kHost, {}, kLong)),
            "ADAPTER_INCOMPATIBLE");
  // The same content, verified against the new base, is a new version.
  const auto again = Register("a", 1, Mode::kUpdate);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->newest.key.version, 2u);
  EXPECT_TRUE(Resolve("a").ok());
  EXPECT_TRUE(Delete("a").ok());
}

// ---- the directory ----------------------------------------------------------

TEST_F(AdapterStoreTest, TwoStoresCannotShareADirectory) {
  const auto second =
      AdapterStore::Open(fs_, clock_, SmallBase(), ops_, options_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(second.status()), "STATE_DIR_IN_USE");
}

TEST_F(AdapterStoreTest, APrivateDirectoryGoesWithTheStore) {
  options_.state_dir.clear();
  Open();
  ASSERT_TRUE(Register("a", 1).ok());
  const auto upload = store_->NewUploadDir();
  ASSERT_TRUE(upload.ok());
  store_.reset();
  EXPECT_FALSE(fs_.FileExists(*upload));
}

TEST_F(AdapterStoreTest, RefusesBudgetsOfNothing) {
  options_.state_dir.clear();
  options_.device_bytes = 0;
  EXPECT_EQ(AdapterStore::Open(fs_, clock_, SmallBase(), ops_, options_)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

// ---- metadata and events ----------------------------------------------------

TEST_F(AdapterStoreTest, ChangesMetadataUnderItsEtag) {
  const auto first = Register("a", 1);
  const auto changed = store_->UpdateMetadata("default", "a", "new name",
                                              std::nullopt, first->etag);
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->display_name, "new name");
  EXPECT_NE(changed->etag, first->etag);
  EXPECT_EQ(store_->UpdateMetadata("default", "a", "x", {}, first->etag)
                .status()
                .code(),
            absl::StatusCode::kAborted);
  EXPECT_EQ(store_->UpdateMetadata("default", "b", "x", {}, {}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(AdapterStoreTest, AMergePolicyIsKeptAndComesWithTheRoute) {
  ASSERT_TRUE(Register("a", 1).ok());
  const AdapterRef ref{.tenant = "default", .name = "a"};
  EXPECT_EQ(store_->FindRoute(ref, "")->merge_policy, std::nullopt);
  const auto changed =
      store_->SetMergePolicy("default", "a", MergePolicy::kAlways);
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->merge_policy, MergePolicy::kAlways);
  store_.reset();
  Open();
  EXPECT_EQ(store_->Get("default", "a")->merge_policy, MergePolicy::kAlways);
  EXPECT_EQ(store_->FindRoute(ref, "")->merge_policy, MergePolicy::kAlways);
  ASSERT_TRUE(store_->SetMergePolicy("default", "a", std::nullopt).ok());
  EXPECT_EQ(store_->FindRoute(ref, "")->merge_policy, std::nullopt);
  EXPECT_EQ(store_->SetMergePolicy("default", "b", MergePolicy::kAuto)
                .status()
                .code(),
            absl::StatusCode::kNotFound);
}

TEST_F(AdapterStoreTest, TellsWatchersOfEveryChange) {
  using Kind = AdapterEvent::Kind;
  const uint64_t start = store_->last_event();
  ASSERT_TRUE(Register("a", 1).ok());
  ASSERT_TRUE(Register("a", 2, Mode::kUpdate).ok());
  ASSERT_TRUE(store_->UpdateMetadata("default", "a", "x", {}, {}).ok());
  ASSERT_TRUE(Delete("a").ok());
  const auto events = store_->WaitForEvents(start, absl::ZeroDuration());
  ASSERT_TRUE(events.ok());
  std::vector<Kind> kinds;
  uint64_t sequence = start;
  for (const AdapterEvent& event : *events) {
    kinds.push_back(event.kind);
    EXPECT_EQ(event.sequence, ++sequence);
    EXPECT_EQ(event.adapter.name, "a");
  }
  EXPECT_THAT(kinds, ElementsAre(Kind::kAdded, Kind::kModified, Kind::kModified,
                                 Kind::kModified, Kind::kDeleted));
  EXPECT_EQ((*events)[3].adapter.state, AdapterState::kDraining);
  EXPECT_EQ(store_->last_event(), sequence);
}

TEST_F(AdapterStoreTest, TellsWatchersOfTiers) {
  ASSERT_TRUE(Register("a", 1).ok());
  const uint64_t start = store_->last_event();
  ASSERT_TRUE(store_->LoadTo("default", "a", Tier::kDevice, {}, kLong).ok());
  absl::StatusOr<std::vector<AdapterEvent>> events;
  do {
    events = store_->WaitForEvents(start, absl::Seconds(10));
  } while (events.ok() && events->empty());
  ASSERT_TRUE(events.ok());
  EXPECT_EQ((*events)[0].adapter.tier, Tier::kDevice);
}

TEST_F(AdapterStoreTest, RemembersTheLastUse) {
  ASSERT_TRUE(Register("a", 1).ok());
  EXPECT_FALSE(store_->Get("default", "a")->last_used.has_value());
  clock_.Advance(absl::Seconds(5));
  ASSERT_TRUE(Resolve("a").ok());
  EXPECT_EQ(store_->Get("default", "a")->last_used, clock_.WallNow());
}

TEST(AdapterStoreNamesTest, TiersAndStatesHaveNames) {
  EXPECT_STREQ(Name(Tier::kDisk), "disk");
  EXPECT_STREQ(Name(Tier::kHost), "host");
  EXPECT_STREQ(Name(Tier::kDevice), "device");
  EXPECT_STREQ(Name(AdapterState::kDraining), "draining");
  EXPECT_STREQ(Name(AdapterState::kIncompatible), "incompatible");
}

// ---- prefetching ------------------------------------------------------------

class PrefetchTest : public AdapterStoreTest {
 protected:
  // Waits until `name` is at least in `tier`.
  bool Reaches(const std::string& name, Tier tier) {
    for (int i = 0; i < 2000; ++i) {
      if (store_->Get("default", name)->tier >= tier) return true;
      lorikeet::SleepFor(absl::Milliseconds(5));
    }
    return false;
  }
};

TEST_F(PrefetchTest, FreedMemoryGoesToWhatIsPopular) {
  for (const char* name : {"often", "once"}) {
    ASSERT_TRUE(Register(name, name[1] == 'f' ? 1 : 2).ok());
  }
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Resolve("often").ok());
  ASSERT_TRUE(store_->LoadTo("default", "once", Tier::kHost, {}, kLong).ok());
  ASSERT_TRUE(store_->UnloadTo("default", "once", Tier::kDisk).ok());
  EXPECT_TRUE(Reaches("often", Tier::kHost));
  EXPECT_EQ(store_->Get("default", "once")->tier, Tier::kDisk);
}

TEST_F(PrefetchTest, ANewVersionFollowsTheOldOneIntoMemory) {
  ASSERT_TRUE(Register("a", 1).ok());
  ASSERT_TRUE(store_->LoadTo("default", "a", Tier::kDevice, {}, kLong).ok());
  ASSERT_TRUE(Register("a", 2, Mode::kUpdate).ok());
  EXPECT_TRUE(Reaches("a", Tier::kHost));
  ASSERT_TRUE(Register("b", 3).ok());
  ASSERT_TRUE(Register("b", 4, Mode::kUpdate).ok());
  EXPECT_EQ(store_->Get("default", "b")->tier, Tier::kDisk);
}

}  // namespace
}  // namespace lorikeet
