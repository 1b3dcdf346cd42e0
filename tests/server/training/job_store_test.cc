#include "server/training/job_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/fault_file_system.h"
#include "tests/testing/golden.h"

namespace lorikeet::testing {
namespace {

JobRecord Record(const std::string& adapter) {
  JobRecord r;
  r.tenant = "default";
  r.adapter = adapter;
  r.options.steps = 5;
  return r;
}

class JobStoreTest : public ::testing::Test {
 protected:
  JobStoreTest() : dir_(FreshTempDir("job_store") + "/jobs"), faults_(fs_) {
    Open();
  }
  void Open() {
    auto store = JobStore::Open(faults_, dir_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  std::vector<std::string> Adapters() {
    std::vector<std::string> names;
    for (const JobRecord& r : store_->ReadAll()) {
      names.push_back(r.id + " " + r.adapter);
    }
    return names;
  }

  PosixFileSystem fs_;
  const std::string dir_;
  FaultFileSystem faults_;
  std::unique_ptr<JobStore> store_;
};

TEST_F(JobStoreTest, JobsAreThereAfterARestartInTheirOrder) {
  for (int i = 0; i < 12; ++i) {
    JobRecord record = Record("a" + std::to_string(i));
    ASSERT_TRUE(store_->Create("data", i == 3 ? "eval" : "", &record).ok());
    EXPECT_EQ(record.id, "job-" + std::to_string(i + 1));
    EXPECT_EQ(record.has_eval, i == 3);
  }
  Open();
  const std::vector<JobRecord> records = store_->ReadAll();
  ASSERT_EQ(records.size(), 12u);
  EXPECT_EQ(records[11].id, "job-12");
  EXPECT_EQ(fs_.ReadFile(store_->DataPath("job-4"), 100).value(), "data");
  EXPECT_EQ(fs_.ReadFile(store_->EvalPath("job-4"), 100).value(), "eval");
  JobRecord next = Record("b");
  ASSERT_TRUE(store_->Create("x", "", &next).ok());
  EXPECT_EQ(next.id, "job-13");
}

TEST_F(JobStoreTest, AJobIsThereWholeOrNotAtAllWhereverTheDiskFails) {
  JobRecord first = Record("first");
  ASSERT_TRUE(store_->Create("data", "eval", &first).ok());
  faults_.Arm(FaultFileSystem::Fault::kFailOnce, FaultFileSystem::kNever);
  JobRecord counted = Record("counted");
  ASSERT_TRUE(store_->Create("data", "eval", &counted).ok());
  const int64_t writes = faults_.count();
  ASSERT_GT(writes, 5);
  int there = 0;
  for (int64_t at = 0; at < writes; ++at) {
    faults_.Arm(FaultFileSystem::Fault::kFailOnward, at);
    JobRecord record = Record("cut");
    EXPECT_FALSE(store_->Create("data", "eval", &record).ok()) << at;
    faults_.Disarm();
    Open();
    for (const JobRecord& r : store_->ReadAll()) {
      if (r.adapter != "cut") continue;
      ++there;
      EXPECT_TRUE(fs_.FileExists(store_->DataPath(r.id))) << at;
      EXPECT_TRUE(fs_.FileExists(store_->EvalPath(r.id))) << at;
    }
    EXPECT_EQ(Adapters()[0], "job-1 first");
  }
  EXPECT_EQ(there, 0);
}

TEST_F(JobStoreTest, AnUpdateThatFailsLeavesTheRecordAsItWas) {
  JobRecord record = Record("a");
  ASSERT_TRUE(store_->Create("data", "", &record).ok());
  record.state = JobState::kSucceeded;
  record.version = 3;
  faults_.Arm(FaultFileSystem::Fault::kFailOnward, 0);
  EXPECT_FALSE(store_->Update(record).ok());
  faults_.Disarm();
  EXPECT_EQ(store_->ReadAll()[0].state, JobState::kQueued);
  ASSERT_TRUE(store_->Update(record).ok());
  EXPECT_EQ(store_->ReadAll()[0].version, 3u);
}

TEST_F(JobStoreTest, ADamagedRecordIsLeftAloneAndTheOthersAreThere) {
  for (const char* const name : {"a", "b", "c"}) {
    JobRecord record = Record(name);
    ASSERT_TRUE(store_->Create("data", "", &record).ok());
  }
  ASSERT_TRUE(
      WriteFileDurably(fs_, dir_ + "/job-2/record.json", "{\"id\": ").ok());
  Open();
  EXPECT_THAT(Adapters(), ::testing::ElementsAre("job-1 a", "job-3 c"));
  EXPECT_TRUE(fs_.FileExists(dir_ + "/job-2/record.json"));
}

TEST_F(JobStoreTest, RemovesWhatAnEndedJobNeedsNoMore) {
  JobRecord record = Record("a");
  ASSERT_TRUE(store_->Create("data", "eval", &record).ok());
  ASSERT_TRUE(fs_.CreateDirectories(store_->OutputPath("job-1")).ok());
  EXPECT_TRUE(store_->HasOutput("job-1"));
  store_->RemoveFiles("job-1");
  EXPECT_FALSE(store_->HasOutput("job-1"));
  EXPECT_FALSE(fs_.FileExists(store_->DataPath("job-1")));
  EXPECT_EQ(store_->ReadAll().size(), 1u);
  store_->Remove("job-1");
  EXPECT_TRUE(store_->ReadAll().empty());
}

}  // namespace
}  // namespace lorikeet::testing
