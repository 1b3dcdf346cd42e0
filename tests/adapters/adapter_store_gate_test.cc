// The gate of a registration, with a gate of the test's own.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/reason.h"
#include "tests/adapters/store_fixture.h"

namespace lorikeet {
namespace {

class GateTest : public testing::StoreFixture {
 protected:
  AdapterStore::RegisterRequest Request(bool with_golden = true) {
    AdapterStore::RegisterRequest r;
    r.name = "a";
    r.path = Source("x", 3);
    if (with_golden) testing::WriteTestFile(r.path + "/golden.jsonl", "lines");
    r.gate = [this](const VersionRef& version, absl::string_view golden) {
      ++calls_;
      golden_ = std::string(golden);
      return Try(version);
    };
    return r;
  }
  // Computes with the version as an engine would.
  absl::Status Try(const VersionRef& version) {
    EXPECT_TRUE(store_->ListAll("default").empty());
    store_->Prefetch(version->key);
    DeviceLease lease = store_->TryLease(version->key);
    while (!lease) lease = store_->TryLease(version->key);
    value_ = static_cast<const testing::FakeOps::Packed&>(
                 *lease.slot()->Find({0, Projection::kQ})->weights)
                 .a()[0];
    return verdict_;
  }

  int calls_ = 0;
  std::string golden_;
  float value_ = 0;
  absl::Status verdict_;
};

TEST_F(GateTest, RunsTheCandidateBeforeItIsRegistered) {
  const auto info = store_->Register(Request());
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(calls_, 1);
  EXPECT_EQ(golden_, "lines");
  EXPECT_EQ(value_, 3.f);
  EXPECT_EQ(info->newest.key.version, 1u);
  EXPECT_EQ(ops_.live, 0);  // of the trial
  EXPECT_EQ(store_->GetResidency().host_bytes, 0);
}

TEST_F(GateTest, ARefusalLeavesNothing) {
  verdict_ = WithReason(absl::InvalidArgumentError("no"), "GOLDEN_MISMATCH");
  for (const bool validate_only : {true, false}) {
    auto r = Request();
    r.validate_only = validate_only;
    EXPECT_EQ(store_->Register(r).status(), verdict_);
  }
  EXPECT_EQ(calls_, 2);
  EXPECT_TRUE(store_->ListAll("default").empty());
  EXPECT_TRUE(Stored().empty());
  EXPECT_TRUE(fs_.List(options_.state_dir + "/tmp")->empty());
  EXPECT_EQ(ops_.live, 0);
}

TEST_F(GateTest, WithoutGoldenPromptsThereIsNothingToRun) {
  EXPECT_TRUE(store_->Register(Request(/*with_golden=*/false)).ok());
  EXPECT_EQ(calls_, 0);
}

TEST_F(GateTest, NobodyCanNameATrial) {
  auto r = Request();
  r.gate = [&](const VersionRef& version, absl::string_view) {
    EXPECT_FALSE(AdapterRef::Parse(version->key.ToString()).ok());
    EXPECT_EQ(Resolve("a").status().code(), absl::StatusCode::kNotFound);
    return absl::OkStatus();
  };
  EXPECT_TRUE(store_->Register(r).ok());
}

}  // namespace
}  // namespace lorikeet
