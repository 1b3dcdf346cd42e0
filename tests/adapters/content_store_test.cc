#include "adapters/content_store.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/adapters/test_adapter.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

namespace stdfs = std::filesystem;

class ContentStoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<ContentStore> Open() {
    auto store = ContentStore::Open(fs_, dir_);
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }
  absl::StatusOr<std::unique_ptr<ContentStore::Staged>> Stage(
      ContentStore& store, const std::string& source) {
    return store.Stage(source + "/adapter_config.json",
                       source + "/adapter_model.safetensors", "", PeftLimits());
  }
  PosixFileSystem fs_;
  const std::string dir_ = testing::FreshTempDir("content");
  const std::string source_ =
      testing::WriteAdapter(testing::FreshTempDir("content_source"), 1);
};

TEST_F(ContentStoreTest, KeepsWhatIsCommittedUnderItsDigest) {
  const auto store = Open();
  const auto staged = Stage(*store, source_);
  ASSERT_TRUE(staged.ok()) << staged.status();
  EXPECT_FALSE(fs_.FileExists(store->Path((*staged)->digest())));
  ASSERT_TRUE(store->Commit(**staged).ok());
  const std::string path = store->Path((*staged)->digest());
  EXPECT_EQ(*DigestOfAdapter(fs_, path, PeftLimits()), (*staged)->digest());
  ASSERT_TRUE(store->Remove((*staged)->digest()).ok());
  EXPECT_FALSE(fs_.FileExists(path));
}

TEST_F(ContentStoreTest, LeavesNothingOfWhatIsNotCommitted) {
  const auto store = Open();
  ASSERT_TRUE(Stage(*store, source_).ok());
  EXPECT_TRUE(stdfs::is_empty(dir_ + "/tmp"));
  EXPECT_TRUE(stdfs::is_empty(dir_ + "/adapters"));
}

TEST_F(ContentStoreTest, CommitOfKnownContentIsNothingToDo) {
  const auto store = Open();
  const auto first = Stage(*store, source_);
  const auto second = Stage(*store, source_);
  ASSERT_TRUE(store->Commit(**first).ok());
  EXPECT_TRUE(store->Commit(**second).ok());
}

TEST_F(ContentStoreTest, CommitRepairsDamagedContent) {
  const auto store = Open();
  const auto first = Stage(*store, source_);
  const auto second = Stage(*store, source_);
  ASSERT_TRUE(store->Commit(**first).ok());
  const std::string path = store->Path((*first)->digest());
  testing::WriteTestFile(path + "/adapter_config.json", "{}");
  ASSERT_TRUE(store->Commit(**second).ok());
  EXPECT_EQ(*DigestOfAdapter(fs_, path, PeftLimits()), (*first)->digest());
}

TEST_F(ContentStoreTest, SweepsWhatNobodyKnowsAndLeavesTheRest) {
  {
    const auto store = Open();
    const auto staged = Stage(*store, source_);
    ASSERT_TRUE(store->Commit(**staged).ok());
    stdfs::create_directories(dir_ + "/tmp/leftover/x");
    stdfs::create_directories(dir_ + "/uploads/leftover");
    stdfs::create_directories(dir_ + "/adapters/not-a-digest");
  }
  const auto store = Open();
  EXPECT_TRUE(stdfs::is_empty(dir_ + "/tmp"));
  EXPECT_TRUE(stdfs::is_empty(dir_ + "/uploads"));
  ASSERT_TRUE(store->Sweep({}).ok());
  EXPECT_EQ(*fs_.List(dir_ + "/adapters"),
            std::vector<std::string>{"not-a-digest"});
}

TEST_F(ContentStoreTest, RemovesOnlyItsOwnUploads) {
  const auto store = Open();
  const auto upload = store->NewUploadDir();
  ASSERT_TRUE(upload.ok());
  EXPECT_TRUE(store->IsUpload(*upload));
  for (const std::string& other :
       {source_, dir_, dir_ + "/uploads", dir_ + "/uploads/",
        dir_ + "/uploads/..", dir_ + "/adapters/x", std::string()}) {
    EXPECT_FALSE(store->IsUpload(other)) << other;
    store->RemoveUpload(other);
  }
  EXPECT_TRUE(fs_.FileExists(source_));
  store->RemoveUpload(*upload);
  EXPECT_FALSE(fs_.FileExists(*upload));
}

TEST_F(ContentStoreTest, NamesTheFileAndNotThePath) {
  const auto store = Open();
  const auto staged = Stage(*store, "/nowhere");
  ASSERT_EQ(staged.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(staged.status().message(), "adapter_config.json is missing");
}

TEST_F(ContentStoreTest, MovesDamagedFilesAsideAndNoOthers) {
  const auto store = Open();
  const auto staged = Stage(*store, source_);
  ASSERT_TRUE(store->Commit(**staged).ok());
  const auto other = Stage(
      *store, testing::WriteAdapter(testing::FreshTempDir("content_other"), 2));
  ASSERT_TRUE(store->Commit(**other).ok());
  const Digest digest = (*staged)->digest();
  EXPECT_EQ(*store->Quarantine(digest), ContentStore::Verdict::kSound);
  testing::WriteTestFile(store->Path(digest) + "/adapter_config.json", "{}");
  EXPECT_EQ(*store->Quarantine(digest), ContentStore::Verdict::kMoved);
  EXPECT_FALSE(fs_.FileExists(store->Path(digest)));
  EXPECT_TRUE(fs_.FileExists(dir_ + "/quarantine/" + digest.ToHex()));
  EXPECT_EQ(*store->Quarantine(digest), ContentStore::Verdict::kMissing);
  EXPECT_EQ(*store->Quarantine((*other)->digest()),
            ContentStore::Verdict::kSound);
}

TEST_F(ContentStoreTest, KeepsGoldenPromptsBesideTheAdapterOutOfItsDigest) {
  const auto store = Open();
  const std::string golden = source_ + "/golden.jsonl";
  const auto without = Stage(*store, source_);
  testing::WriteTestFile(golden, "{}\n");
  const auto with = store->Stage(source_ + "/adapter_config.json",
                                 source_ + "/adapter_model.safetensors", golden,
                                 PeftLimits());
  ASSERT_TRUE(with.ok()) << with.status();
  EXPECT_EQ((*with)->digest(), (*without)->digest());
  ASSERT_TRUE(store->Commit(**with).ok());
  EXPECT_EQ(*fs_.ReadFile(store->Path((*with)->digest()) + "/golden.jsonl", 9),
            "{}\n");
}

}  // namespace
}  // namespace lorikeet
