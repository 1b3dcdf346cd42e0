#include "train/checkpoint_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/reference/reference_ops.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/golden.h"

namespace lorikeet::testing {
namespace {

class CheckpointStoreTest : public ::testing::Test {
 protected:
  CheckpointStoreTest() {
    state_.Set("x", 1);
    Fill(1);
  }
  static std::vector<ParameterShape> Shapes() {
    return {{"a", {3, 4}}, {"b", {5}}};
  }
  void Fill(float start) {
    float next = start;
    for (float& v : parameters_->host_values()) v = next++;
    for (float& v : parameters_->host_first_moments()) v = next++;
    for (float& v : parameters_->host_second_moments()) v = next++;
  }

  PosixFileSystem posix_;
  FaultFileSystem fs_{posix_};
  const std::string dir_ = FreshTempDir("checkpoints");
  CheckpointStore store_{fs_, dir_};
  const std::unique_ptr<Ops> ops_ = NewReferenceOps();
  const std::unique_ptr<ParameterSet> parameters_ =
      ParameterSet::Create(Shapes(), *ops_).value();
  Json state_ = Json::Object();
};

TEST_F(CheckpointStoreTest, BringsBackWhatWasSaved) {
  EXPECT_EQ(store_.Latest().value(), std::nullopt);
  ASSERT_TRUE(store_.Save(7, state_, *parameters_).ok());
  EXPECT_EQ(store_.Latest().value(), 7);
  EXPECT_EQ(store_.ReadState(7).value(), state_);
  const auto again = ParameterSet::Create(Shapes(), *ops_).value();
  ASSERT_TRUE(store_.ReadParameters(7, *again).ok());
  for (size_t i = 0; i < 17; ++i) {
    EXPECT_EQ(again->host_values()[i], parameters_->host_values()[i]);
    EXPECT_EQ(again->host_first_moments()[i],
              parameters_->host_first_moments()[i]);
    EXPECT_EQ(again->host_second_moments()[i],
              parameters_->host_second_moments()[i]);
  }
}

TEST_F(CheckpointStoreTest, KeepsTheTwoNewest) {
  for (const int64_t step : {5, 10, 15}) {
    ASSERT_TRUE(store_.Save(step, state_, *parameters_).ok());
  }
  EXPECT_THAT(fs_.List(dir_).value(),
              ::testing::ElementsAre("step-10", "step-15"));
  EXPECT_EQ(store_.Latest().value(), 15);
}

TEST_F(CheckpointStoreTest, AFullDiskLeavesTheEarlierCheckpoint) {
  ASSERT_TRUE(store_.Save(5, state_, *parameters_).ok());
  fs_.Arm(FaultFileSystem::Fault::kFailOnce, FaultFileSystem::kNever);
  ASSERT_TRUE(store_.Save(6, state_, *parameters_).ok());
  const int64_t writes = fs_.count();
  ASSERT_TRUE(posix_.RemoveTree(dir_ + "/step-6").ok());
  Fill(100);
  for (int64_t at = 0; at < writes; ++at) {
    fs_.Arm(FaultFileSystem::Fault::kFailOnward, at);
    const absl::Status status = store_.Save(10, state_, *parameters_);
    fs_.Disarm();
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << at << status;
    EXPECT_THAT(std::string(status.message()),
                ::testing::HasSubstr("checkpoint of step 10"));
    const int64_t latest = store_.Latest().value().value();
    const auto again = ParameterSet::Create(Shapes(), *ops_).value();
    ASSERT_TRUE(store_.ReadParameters(latest, *again).ok()) << at;
    EXPECT_EQ(again->host_values()[0], latest == 5 ? 1 : 100) << at;
    ASSERT_TRUE(posix_.RemoveTree(dir_ + "/step-10").ok());
  }
}

TEST_F(CheckpointStoreTest, AnotherJobsParametersAreRefused) {
  ASSERT_TRUE(store_.Save(5, state_, *parameters_).ok());
  const auto other = ParameterSet::Create({{"a", {3, 3}}}, *ops_).value();
  EXPECT_TRUE(absl::IsDataLoss(store_.ReadParameters(5, *other)));
}

}  // namespace
}  // namespace lorikeet::testing
