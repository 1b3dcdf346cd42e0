// Everything at once, from many threads: requests always compute with the
// weights of the version that they hold, and in the end nothing is left.

#include <gtest/gtest.h>

#include <atomic>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "adapters/adapter_store.h"
#include "adapters/peft_reader.h"
#include "base/background_queue.h"
#include "base/log.h"
#include "base/random.h"
#include "tests/adapters/fake_ops.h"
#include "tests/adapters/test_adapter.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

using testing::FakeOps;
using testing::SmallBase;
using testing::WriteAdapter;

constexpr int kAdapters = 5;
constexpr int kContents = 4;
constexpr int kRequestThreads = 4;
constexpr int kRequests = 300;  // per thread
constexpr int kUpdates = 40;

class StressTest : public ::testing::Test {
 protected:
  StressTest() {
    SetLogLevel(LogLevel::kOff);
    for (int i = 0; i < kContents; ++i) {
      const std::string dir = WriteAdapter(absl::StrCat(root_, "/source-", i),
                                           static_cast<float>(i));
      value_of_[*DigestOfAdapter(fs_, dir, PeftLimits())] =
          static_cast<float>(i);
    }
    AdapterStoreOptions options;
    options.state_dir = root_ + "/state";
    options.host_bytes = 1000;  // three adapters
    options.device_bytes = 1 << 20;
    options.max_device_adapters = 2;
    options.loader_threads = 2;
    auto store = AdapterStore::Open(fs_, clock_, SmallBase(), ops_, options);
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    store_->SetLoadedCallback([this] {
      MutexLock lock(&mu_);
      ++loads_;
      loaded_.SignalAll();
    });
  }
  ~StressTest() override { SetLogLevel(LogLevel::kInfo); }

  static std::string NameOf(uint64_t i) { return absl::StrCat("a", i); }

  absl::Status Register(const std::string& name, uint64_t content) {
    AdapterStore::RegisterRequest r;
    r.name = name;
    r.path = absl::StrCat(root_, "/source-", content);
    r.trusted_path = true;
    r.mode = AdapterStore::RegisterRequest::Mode::kCreateOrUpdate;
    return store_->Register(r).status();
  }

  // One request: admitted, waits for its adapter, computes, ends.
  void Request(const std::string& name) {
    AdapterRef ref;
    ref.name = name;
    const auto version = store_->Resolve(ref);
    if (!version.ok()) return;  // deleted just now
    const AdapterKey key = (*version)->key;
    DeviceLease lease = store_->TryLease(key);
    while (!lease) {
      ASSERT_TRUE(store_->LoadError(key).ok()) << store_->LoadError(key);
      store_->Prefetch(key);
      {
        MutexLock lock(&mu_);
        loaded_.WaitFor(&mu_, absl::Milliseconds(5));
      }
      lease = store_->TryLease(key);
    }
    const float expected = value_of_.at(key.digest);
    for (int layer = 0; layer < 2; ++layer) {
      const auto* entry = lease.slot()->Find({layer, Projection::kQ});
      ASSERT_NE(entry, nullptr);
      for (const float value :
           static_cast<const FakeOps::Packed&>(*entry->weights).a()) {
        ASSERT_EQ(value, expected);
      }
    }
    ++served_;
  }

  PosixFileSystem fs_;
  SystemClock clock_;
  FakeOps ops_;
  const std::string root_ = testing::FreshTempDir("stress");
  absl::flat_hash_map<Digest, float> value_of_;
  std::unique_ptr<AdapterStore> store_;
  std::atomic<int64_t> served_{0};
  Mutex mu_;
  CondVar loaded_;
  int64_t loads_ ABSL_GUARDED_BY(mu_) = 0;
};

TEST_F(StressTest, RequestsUpdatesPinsAndDeletionsAtOnce) {
  for (int i = 0; i < kAdapters; ++i) {
    ASSERT_TRUE(Register(NameOf(i), i % kContents).ok());
  }
  std::atomic<int> running{kRequestThreads};
  {
    std::vector<std::unique_ptr<BackgroundThread>> threads;
    for (int t = 0; t < kRequestThreads; ++t) {
      threads.push_back(std::make_unique<BackgroundThread>("request", [&, t] {
        Rng rng(static_cast<uint64_t>(t));
        for (int i = 0; i < kRequests; ++i) {
          Request(NameOf(rng.Below(kAdapters)));
        }
        --running;
      }));
    }
    threads.push_back(std::make_unique<BackgroundThread>("update", [&] {
      Rng rng(100);
      for (int i = 0; i < kUpdates; ++i) {
        const std::string name = NameOf(rng.Below(kAdapters));
        // May meet a deletion.
        Register(name, rng.Below(kContents)).IgnoreError();
      }
    }));
    threads.push_back(std::make_unique<BackgroundThread>("delete", [&] {
      Rng rng(200);
      while (running > 0) {
        const std::string name = NameOf(rng.Below(kAdapters));
        if (!store_->BeginDelete("default", name, {}).ok()) continue;
        if (!store_->FinishDelete("default", name).ok()) {
          store_->CancelDelete("default", name);
        }
        Register(name, rng.Below(kContents)).IgnoreError();
      }
    }));
    threads.push_back(std::make_unique<BackgroundThread>("operate", [&] {
      Rng rng(300);
      while (running > 0) {
        const std::string name = NameOf(rng.Below(kAdapters));
        switch (rng.Below(4)) {
          case 0:
            store_->ListAll("default");
            break;
          case 1:
            store_->UnloadTo("default", name, Tier::kDisk)
                .status()
                .IgnoreError();
            break;
          case 2:
            store_
                ->LoadTo("default", name, Tier::kHost, {},
                         absl::Milliseconds(20))
                .IgnoreError();
            break;
          default:
            // One pin at a time, so that a slot is left for the others.
            store_->SetPinned("default", name, true).status().IgnoreError();
            store_->SetPinned("default", name, false).status().IgnoreError();
        }
      }
    }));
    threads.push_back(std::make_unique<BackgroundThread>("watch", [&] {
      uint64_t seen = store_->last_event();
      while (running > 0) {
        const auto events = store_->WaitForEvents(seen, absl::Milliseconds(20));
        if (!events.ok()) {
          seen = store_->last_event();  // fell behind
        } else if (!events->empty()) {
          EXPECT_EQ(events->front().sequence, seen + 1);
          seen = events->back().sequence;
        }
      }
    }));
  }
  EXPECT_GT(served_, kRequests / 10);
  RecordProperty("served", absl::StrCat(served_.load()));
  for (const AdapterInfo& info : store_->ListAll("default")) {
    EXPECT_EQ(info.active_requests, 0);
    EXPECT_TRUE(store_->FinishDelete("default", info.name).ok());
  }
  EXPECT_EQ(ops_.live, 0);
  EXPECT_EQ(store_->GetResidency().host_bytes, 0);
  EXPECT_EQ(store_->GetResidency().device_bytes, 0);
  EXPECT_TRUE(fs_.List(root_ + "/state/adapters")->empty());
}

}  // namespace
}  // namespace lorikeet
