#include "model/base_verifier.h"

#include <gtest/gtest.h>

#include "tests/model/test_runner.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

class BaseVerifierTest : public ::testing::Test {
 protected:
  void SetUp() override {
    PosixFileSystem fs;
    auto model =
        Model::Load(fs, testing::SourceDir() + "/demo/base", *backend_.ops, {});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  testing::Backend backend_ = testing::NewBackend("cpu");
  std::unique_ptr<Model> model_;
};

TEST_F(BaseVerifierTest, SeesOneBitOfOneWeight) {
  ManualClock clock;  // stands still: so does the background
  BaseVerifier verifier(*model_, clock, absl::ZeroDuration());
  const auto before = verifier.Verify();
  ASSERT_TRUE(before.ok()) << before.status();
  EXPECT_TRUE(before->is_intact);
  EXPECT_GE(before->bytes, model_->weight_bytes());
  EXPECT_EQ(before->found, before->expected);

  const absl::string_view bytes = model_->layer(1).linears[2]->packed_bytes();
  char* const victim = const_cast<char*>(bytes.data()) + bytes.size() / 2;
  *victim ^= 1;
  const auto damaged = verifier.Verify();
  ASSERT_TRUE(damaged.ok());
  EXPECT_FALSE(damaged->is_intact);
  EXPECT_EQ(damaged->failures, 1);
  EXPECT_EQ(damaged->expected, before->expected);

  *victim ^= 1;
  const auto after = verifier.Verify();
  ASSERT_TRUE(after.ok());
  EXPECT_TRUE(after->is_intact);
  EXPECT_EQ(after->passes, 3);
  EXPECT_EQ(after->failures, 1);
}

TEST_F(BaseVerifierTest, TheBackgroundLearnsTheSameSum) {
  SystemClock clock;
  BaseVerifier verifier(*model_, clock, absl::ZeroDuration());
  // Its first pass may come before or after ours.
  for (int pass = 0; pass < 3; ++pass) {
    const auto report = verifier.Verify();
    ASSERT_TRUE(report.ok());
    EXPECT_TRUE(report->is_intact);
  }
  EXPECT_EQ(BaseChecksum(*model_), verifier.Verify()->found);
}

}  // namespace
}  // namespace lorikeet
