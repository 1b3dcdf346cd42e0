// What is left when the disk is full, or the process is killed, at every write
// in turn: of the file system and of SQLite.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/str_cat.h"
#include "adapters/adapter_store.h"
#include "base/log.h"
#include "base/reason.h"
#include "tests/adapters/fake_ops.h"
#include "tests/adapters/fault_vfs.h"
#include "tests/adapters/test_adapter.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

namespace stdfs = std::filesystem;
using testing::FakeOps;
using testing::FaultFileSystem;
using testing::FaultVfs;
using testing::FreshTempDir;
using testing::SmallBase;
using testing::WriteAdapter;
using Mode = AdapterStore::RegisterRequest::Mode;

class CrashTest : public ::testing::Test {
 protected:
  CrashTest() {
    SetLogLevel(LogLevel::kOff);
    FaultVfs::Install();
    for (int value = 1; value <= 3; ++value) {
      WriteAdapter(Source(value), static_cast<float>(value));
    }
    options_.host_bytes = options_.device_bytes = 1 << 20;
    options_.max_device_adapters = 4;
  }
  ~CrashTest() override {
    FaultVfs::Disarm();
    SetLogLevel(LogLevel::kInfo);
  }

  std::string Source(int value) const {
    return absl::StrCat(root_, "/source-", value);
  }
  absl::StatusOr<std::unique_ptr<AdapterStore>> Open(const std::string& dir) {
    options_.state_dir = dir;
    return AdapterStore::Open(fs_, clock_, SmallBase(), ops_, options_);
  }
  absl::Status Register(AdapterStore& store, const std::string& name,
                        int value) {
    AdapterStore::RegisterRequest r;
    r.name = name;
    r.path = Source(value);
    r.trusted_path = true;
    r.mode = Mode::kCreateOrUpdate;
    return store.Register(r).status();
  }
  // "a@2 b@1 t>a@1": newest versions and aliases.
  static std::string StateOf(AdapterStore& store) {
    std::string state;
    for (const AdapterInfo& info : store.ListAll("default")) {
      absl::StrAppend(&state, info.newest.key.ToString(),
                      info.pinned ? "! " : " ");
    }
    for (const AliasInfo& alias : store.ListAliases("default")) {
      absl::StrAppend(&state, alias.name, ">", alias.target.ToString(), " ");
    }
    return state;
  }
  // No temporary files, and exactly the content of the registered versions,
  // which can all be read.
  void ExpectClean(AdapterStore& store, const std::string& dir) {
    EXPECT_TRUE(stdfs::is_empty(dir + "/tmp"));
    std::set<std::string> expected, found;
    for (const AdapterInfo& info : store.ListAll("default")) {
      const auto versions = store.ListVersions("default", info.name);
      ASSERT_TRUE(versions.ok());
      for (const AdapterVersionInfo& v : *versions) {
        expected.insert(v.key.digest.ToHex());
      }
      EXPECT_TRUE(
          store.LoadTo("default", info.name, Tier::kHost, {}, absl::Seconds(60))
              .ok())
          << info.name;
    }
    for (const auto& entry : stdfs::directory_iterator(dir + "/adapters")) {
      found.insert(entry.path().filename());
    }
    EXPECT_EQ(found, expected);
  }

  PosixFileSystem disk_;
  FaultFileSystem fs_{disk_};
  SystemClock clock_;
  FakeOps ops_;
  AdapterStoreOptions options_;
  const std::string root_ = FreshTempDir("crash");
};

// ---- a full disk ------------------------------------------------------------

TEST_F(CrashTest, AFullDiskAtAnyWriteLeavesNothingRegistered) {
  using Fault = FaultFileSystem::Fault;
  for (const Fault fault : {Fault::kFailOnce, Fault::kFailOnward}) {
    const std::string dir = FreshTempDir("crash_full");
    auto store = Open(dir);
    ASSERT_TRUE(store.ok()) << store.status();
    ASSERT_TRUE(Register(**store, "a", 1).ok());
    int64_t at = 0;
    for (;; ++at) {
      SCOPED_TRACE(at);
      ASSERT_LT(at, 100);
      fs_.Arm(fault, at);
      const absl::Status update = Register(**store, "a", 2);
      const bool was_reached = fs_.count() > at;
      fs_.Disarm();
      if (!was_reached) {
        EXPECT_TRUE(update.ok()) << update;
        break;
      }
      EXPECT_EQ(update.code(), absl::StatusCode::kResourceExhausted) << update;
      EXPECT_EQ(ReasonOf(update), "DISK_FULL");
      EXPECT_EQ(StateOf(**store), "a@1 ");
      ExpectClean(**store, dir);
      // The next one works, with other content and with the same.
      ASSERT_TRUE(Register(**store, "b", 2).ok());
      ASSERT_TRUE((*store)->FinishDelete("default", "b").ok());
    }
    EXPECT_GT(at, 5);
    EXPECT_EQ(StateOf(**store), "a@2 ");
    ExpectClean(**store, dir);
  }
}

TEST_F(CrashTest, AFullDiskAtAnyWriteOfTheRegistryLeavesNothingRegistered) {
  using Fault = FaultVfs::Fault;
  for (const Fault fault : {Fault::kFailOnce, Fault::kFailOnward}) {
    const std::string dir = FreshTempDir("crash_full_sql");
    auto store = Open(dir);
    ASSERT_TRUE(store.ok()) << store.status();
    ASSERT_TRUE(Register(**store, "a", 1).ok());
    int64_t at = 0;
    for (;; ++at) {
      SCOPED_TRACE(at);
      ASSERT_LT(at, 100);
      FaultVfs::Arm(fault, at);
      const absl::Status update = Register(**store, "a", 2);
      const bool was_reached = FaultVfs::count() > at;
      FaultVfs::Disarm();
      if (!was_reached) {
        EXPECT_TRUE(update.ok()) << update;
        break;
      }
      EXPECT_FALSE(update.ok());
      EXPECT_EQ(StateOf(**store), "a@1 ");
      // After a failed sync the files stay until the next start.
      if (absl::IsResourceExhausted(update)) ExpectClean(**store, dir);
    }
    EXPECT_GT(at, 2);
    store->reset();
    store = Open(dir);
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_EQ(StateOf(**store), "a@2 ");
    ExpectClean(**store, dir);
  }
}

TEST_F(CrashTest, AFullDiskAtTheStartIsNoReasonToLoseAnything) {
  const std::string dir = FreshTempDir("crash_open");
  {
    auto store = Open(dir);
    ASSERT_TRUE(store.ok());
    ASSERT_TRUE(Register(**store, "a", 1).ok());
  }
  for (int64_t at = 0;; ++at) {
    ASSERT_LT(at, 100);
    fs_.Arm(FaultFileSystem::Fault::kFailOnce, at);
    const auto store = Open(dir);
    if (store.ok()) break;
    EXPECT_EQ(store.status().code(), absl::StatusCode::kResourceExhausted);
  }
  fs_.Disarm();
  const auto store = Open(dir);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(StateOf(**store), "a@1 ");
}

// ---- kill -9 ----------------------------------------------------------------

// The life that is cut: after step i the state is kStates[i].
constexpr const char* kStates[] = {
    "",           "a@1 ",       "a@2 ",           "a@2 t>a@1 ",
    "a@2 t>a@2 ", "a@2 t>a@1 ", "a@2 b@1 t>a@1 ", "a@2 b@1! t>a@1 ",
    "b@1! ",
};
constexpr int kSteps = 8;

class KillTest : public CrashTest {
 protected:
  absl::Status Step(AdapterStore& store, int step) {
    switch (step) {
      case 0:
        return Register(store, "a", 1);
      case 1:
        return Register(store, "a", 2);
      case 2:
        return store.SetAlias("default", "t", *AdapterRef::Parse("a@1"), {})
            .status();
      case 3:
        return store.PromoteAlias("default", "t", *AdapterRef::Parse("a@2"), {})
            .status();
      case 4:
        return store.RollBackAlias("default", "t", {}).status();
      case 5:
        return Register(store, "b", 3);
      case 6:
        return store.SetPinned("default", "b", true).status();
      default:
        return store.FinishDelete("default", "a");
    }
  }

  // Lives in a child that dies at write `at`; returns the number of steps that
  // it was told are done, or -1 if it lived to the end.
  int LiveAndDie(const std::string& dir, bool in_sqlite, int64_t at) {
    int pipe_ends[2];
    EXPECT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      if (in_sqlite) {
        FaultVfs::Arm(FaultVfs::Fault::kExit, at);
      } else {
        fs_.Arm(FaultFileSystem::Fault::kExit, at);
      }
      auto store = Open(dir);
      if (!store.ok()) ::_exit(1);
      for (int step = 0; step < kSteps; ++step) {
        if (!Step(**store, step).ok()) ::_exit(2);
        if (::write(pipe_ends[1], "x", 1) != 1) ::_exit(3);
      }
      ::_exit(0);
    }
    ::close(pipe_ends[1]);
    int done = 0;
    char c;
    while (::read(pipe_ends[0], &c, 1) == 1) ++done;
    ::close(pipe_ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 0) return -1;
    EXPECT_EQ(WEXITSTATUS(status), FaultFileSystem::kExitStatus);
    return done;
  }

  void DieEverywhere(bool in_sqlite) {
    int deaths = 0;
    for (int64_t at = 0;; ++at) {
      SCOPED_TRACE(at);
      ASSERT_LT(at, 1000);
      const std::string dir =
          FreshTempDir(in_sqlite ? "kill_sqlite" : "kill_files");
      const int done = LiveAndDie(dir, in_sqlite, at);
      if (done < 0) break;
      ++deaths;
      const auto store = Open(dir);
      ASSERT_TRUE(store.ok()) << store.status();
      // What was acknowledged is there; of the step that was cut, all or
      // nothing.
      EXPECT_THAT(
          StateOf(**store),
          ::testing::AnyOf(kStates[done], kStates[std::min(done + 1, kSteps)]));
      ExpectClean(**store, dir);
      EXPECT_TRUE(Register(**store, "c", 1).ok());
    }
    EXPECT_GT(deaths, 20);
  }
};

TEST_F(KillTest, AKillAtAnyWriteLeavesTheStateBeforeOrAfter) {
  DieEverywhere(/*in_sqlite=*/false);
}

TEST_F(KillTest, AKillAtAnyWriteOfTheRegistryLeavesTheStateBeforeOrAfter) {
  DieEverywhere(/*in_sqlite=*/true);
}

}  // namespace
}  // namespace lorikeet
