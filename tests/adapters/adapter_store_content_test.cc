// Damaged files: quarantined and named, and nobody else notices.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapters/peft_reader.h"
#include "base/log.h"
#include "base/reason.h"
#include "tests/adapters/store_fixture.h"

namespace lorikeet {
namespace {

using ::testing::HasSubstr;

class QuarantineTest : public testing::StoreFixture {
 protected:
  QuarantineTest() {
    SetLogLevel(LogLevel::kOff);
    key_ = Register("a", 1)->newest.key;
    EXPECT_TRUE(Register("b", 2).ok());
  }
  ~QuarantineTest() override { SetLogLevel(LogLevel::kInfo); }

  std::string PathOf(const std::string& folder) {
    return absl::StrCat(options_.state_dir, "/", folder, "/",
                        key_.digest.ToHex());
  }
  absl::Status Load(const std::string& name) {
    return store_->LoadTo("default", name, Tier::kDevice, {}, absl::Minutes(1));
  }
  void Damage(absl::string_view file) {
    const std::string path = JoinPath(PathOf("adapters"), file);
    std::string bytes = *fs_.ReadFile(path, 1 << 20);
    bytes[bytes.size() / 2] ^= 1;
    testing::WriteTestFile(path, bytes);
  }
  void ExpectQuarantined() {
    const absl::Status status = Load("a");
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_EQ(ReasonOf(status), "ADAPTER_DAMAGED");
    EXPECT_THAT(std::string(status.message()), HasSubstr("a@1"));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("quarantine/" + key_.digest.ToHex()));
    EXPECT_FALSE(fs_.FileExists(PathOf("adapters")));
    EXPECT_TRUE(fs_.FileExists(PathOf("quarantine")));
    EXPECT_EQ(store_->Get("default", "a")->state, AdapterState::kFailed);
    const auto trail = store_->ReadAudit({"default", "a", 0, 1});
    EXPECT_EQ((*trail)[0].action, "quarantine");
    EXPECT_EQ((*trail)[0].actor, "server");
  }

  AdapterKey key_;
};

TEST_F(QuarantineTest, AFlippedBitIsFoundOnLoad) {
  Damage(kAdapterModelFile);
  ExpectQuarantined();
  EXPECT_TRUE(Load("b").ok());
}

TEST_F(QuarantineTest, AConfigThatIsNoneIsFoundOnLoad) {
  testing::WriteTestFile(JoinPath(PathOf("adapters"), kAdapterConfigFile), "{");
  ExpectQuarantined();
  EXPECT_TRUE(Load("b").ok());
}

TEST_F(QuarantineTest, MissingFilesAreNamedAfterARestartToo) {
  Damage(kAdapterModelFile);
  ExpectQuarantined();
  Open();
  EXPECT_EQ(ReasonOf(Load("a")), "ADAPTER_DAMAGED");
  EXPECT_TRUE(fs_.FileExists(PathOf("quarantine")));
  EXPECT_TRUE(Load("b").ok());
}

TEST_F(QuarantineTest, RegisteringTheSameFilesAgainRepairs) {
  Damage(kAdapterModelFile);
  ExpectQuarantined();
  const auto again = Register("a", 1, Mode::kUpdate);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->newest.key, key_);
  EXPECT_EQ(again->state, AdapterState::kActive);
  EXPECT_TRUE(Load("a").ok());
}

TEST_F(QuarantineTest, DeletingADamagedAdapterWorks) {
  Damage(kAdapterModelFile);
  ExpectQuarantined();
  EXPECT_TRUE(Delete("a").ok());
  EXPECT_TRUE(fs_.FileExists(PathOf("quarantine")));
}

TEST_F(QuarantineTest, RefusesADirectoryThatCannotBeWritten) {
  // As root every directory can be written; a file in the lock's place cannot.
  options_.state_dir = testing::FreshTempDir("store_lock");
  testing::WriteTestFile(options_.state_dir + "/target", "");
  std::filesystem::create_symlink(options_.state_dir + "/target",
                                  options_.state_dir + "/lock");
  EXPECT_FALSE(
      AdapterStore::Open(fs_, clock_, testing::SmallBase(), ops_, options_)
          .ok());
}

}  // namespace
}  // namespace lorikeet
