#include "adapters/adapter_loader.h"

#include <gtest/gtest.h>

#include "base/reason.h"
#include "tests/adapters/fake_ops.h"
#include "tests/adapters/test_adapter.h"

namespace lorikeet {
namespace {

using testing::FakeOps;
using testing::FakeWeights;
using testing::Key;

constexpr absl::Duration kLong = absl::Seconds(60);

class AdapterLoaderTest : public ::testing::Test {
 protected:
  AdapterLoaderTest() { Start(/*slots=*/2, /*device_bytes=*/1000); }

  void Start(int slots, int64_t device_bytes, int64_t host_bytes = 10'000) {
    loader_.reset();
    AdapterLoader::Options options;
    options.host_bytes = host_bytes;
    options.device_bytes = device_bytes;
    options.device_slots = slots;
    options.threads = 2;
    options.read =
        [this](const AdapterKey& key) -> absl::StatusOr<HostCache::Weights> {
      ++reads_;
      if (key.name == "bad") return absl::DataLossError("it is bad");
      return FakeWeights(key.name == "huge" ? 4000 : 400);
    };
    loader_ = std::make_unique<AdapterLoader>(ops_, clock_, options);
    loader_->SetLoadedCallback([this] {
      MutexLock lock(&mu_);
      ++loaded_;
      changed_.SignalAll();
    });
  }
  // Waits until `n` loads have ended, since Start.
  void AwaitLoads(int n) {
    MutexLock lock(&mu_);
    while (loaded_ < n) changed_.Wait(&mu_);
  }
  absl::Status Load(absl::string_view name, Tier tier = Tier::kDevice) {
    return loader_->Load(Key(name), users_, tier, kLong);
  }

  FakeOps ops_;
  ManualClock clock_;
  std::atomic<int> reads_{0};
  const std::shared_ptr<std::atomic<int64_t>> users_ =
      std::make_shared<std::atomic<int64_t>>(0);
  Mutex mu_;
  CondVar changed_;
  int loaded_ ABSL_GUARDED_BY(mu_) = 0;
  std::unique_ptr<AdapterLoader> loader_;
};

TEST_F(AdapterLoaderTest, BringsAnAdapterUpTierByTier) {
  EXPECT_EQ(loader_->TierOf(Key("a")), Tier::kDisk);
  ASSERT_TRUE(Load("a", Tier::kHost).ok());
  EXPECT_EQ(loader_->TierOf(Key("a")), Tier::kHost);
  EXPECT_FALSE(loader_->TryLease(Key("a")));
  ASSERT_TRUE(Load("a").ok());
  EXPECT_EQ(loader_->TierOf(Key("a")), Tier::kDevice);
  EXPECT_TRUE(loader_->TryLease(Key("a")));
  EXPECT_EQ(reads_, 1);
  EXPECT_EQ(*loader_->Unload(Key("a"), Tier::kHost), 400);
  EXPECT_EQ(loader_->TierOf(Key("a")), Tier::kHost);
  EXPECT_EQ(*loader_->Unload(Key("a"), Tier::kDisk), 400);
  EXPECT_EQ(loader_->TierOf(Key("a")), Tier::kDisk);
  EXPECT_EQ(ops_.live, 0);
}

TEST_F(AdapterLoaderTest, ManyPrefetchesCauseOneLoad) {
  ops_.CloseGate();
  for (int i = 0; i < 1000; ++i) loader_->Prefetch(Key("a"), users_);
  ops_.AwaitPacker();
  for (int i = 0; i < 1000; ++i) loader_->Prefetch(Key("a"), users_);
  ops_.OpenGate();
  ASSERT_TRUE(Load("a").ok());
  for (int i = 0; i < 1000; ++i) loader_->Prefetch(Key("a"), users_);
  EXPECT_EQ(reads_, 1);
  EXPECT_EQ(ops_.packs, 1);
  EXPECT_EQ(loader_->GetResidency().loads, 1);
}

TEST_F(AdapterLoaderTest, GivesEachLoadANewGeneration) {
  ASSERT_TRUE(Load("a").ok());
  const uint32_t first = loader_->TryLease(Key("a")).slot()->generation;
  ASSERT_TRUE(loader_->Unload(Key("a"), Tier::kDisk).ok());
  ASSERT_TRUE(Load("a").ok());
  EXPECT_NE(loader_->TryLease(Key("a")).slot()->generation, first);
}

TEST_F(AdapterLoaderTest, AWaitingLoadGoesOnWhenALeaseIsDropped) {
  ASSERT_TRUE(Load("a").ok());
  ASSERT_TRUE(Load("b").ok());
  DeviceLease a = loader_->TryLease(Key("a"));
  const DeviceLease b = loader_->TryLease(Key("b"));
  AwaitLoads(2);
  loader_->Prefetch(Key("c"), users_);
  AwaitLoads(3);  // ended for now: no room
  EXPECT_FALSE(loader_->TryLease(Key("c")));
  EXPECT_TRUE(loader_->LoadError(Key("c")).ok());
  a = DeviceLease();
  AwaitLoads(4);
  EXPECT_TRUE(loader_->TryLease(Key("c")));
  EXPECT_EQ(loader_->TierOf(Key("a")), Tier::kHost);
  EXPECT_EQ(loader_->GetResidency().evictions, 1);
}

TEST_F(AdapterLoaderTest, LoadDoesNotWaitForLeases) {
  ASSERT_TRUE(Load("a").ok());
  ASSERT_TRUE(Load("b").ok());
  const DeviceLease a = loader_->TryLease(Key("a"));
  DeviceLease b = loader_->TryLease(Key("b"));
  const absl::Status status = Load("c");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "DEVICE_FULL");
  // Which says nothing to those who would wait.
  EXPECT_TRUE(loader_->LoadError(Key("c")).ok());
  loader_->Prefetch(Key("c"), users_);
  b = DeviceLease();
  EXPECT_TRUE(Load("c").ok());
}

TEST_F(AdapterLoaderTest, FailsForGoodWhatNeverFits) {
  loader_->Prefetch(Key("huge"), users_);
  AwaitLoads(1);
  EXPECT_EQ(ReasonOf(loader_->LoadError(Key("huge"))), "DEVICE_FULL");
  EXPECT_EQ(loader_->GetResidency().device_bytes, 0);
}

TEST_F(AdapterLoaderTest, FailsBesideWhatIsPinned) {
  loader_->SetPinned(Key("a"), true);
  loader_->SetPinned(Key("b"), true);
  ASSERT_TRUE(Load("a").ok());
  ASSERT_TRUE(Load("b").ok());
  EXPECT_EQ(Load("c").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(loader_->TierOf(Key("a")), Tier::kDevice);
  EXPECT_EQ(loader_->TierOf(Key("b")), Tier::kDevice);
  loader_->SetPinned(Key("b"), false);
  EXPECT_TRUE(Load("c").ok());
}

TEST_F(AdapterLoaderTest, RepeatsAFailedLoadOnlyAfterAWhile) {
  loader_->Prefetch(Key("bad"), users_);
  AwaitLoads(1);
  EXPECT_EQ(loader_->LoadError(Key("bad")).code(), absl::StatusCode::kDataLoss);
  for (int i = 0; i < 100; ++i) loader_->Prefetch(Key("bad"), users_);
  EXPECT_EQ(reads_, 1);
  EXPECT_FALSE(loader_->LoadError(Key("bad")).ok());
  clock_.Advance(AdapterLoader::kRetryAfter);
  loader_->Prefetch(Key("bad"), users_);
  AwaitLoads(2);
  EXPECT_EQ(reads_, 2);
}

TEST_F(AdapterLoaderTest, PassesTheHostWithoutStayingIfItIsFull) {
  Start(/*slots=*/2, /*device_bytes=*/1000, /*host_bytes=*/100);
  EXPECT_TRUE(Load("a").ok());
  EXPECT_EQ(loader_->GetResidency().host_adapters, 0);
  EXPECT_EQ(Load("b", Tier::kHost).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(AdapterLoaderTest, DoesNotUnloadWhatIsLeased) {
  ASSERT_TRUE(Load("a").ok());
  {
    const DeviceLease lease = loader_->TryLease(Key("a"));
    EXPECT_EQ(ReasonOf(loader_->Unload(Key("a"), Tier::kHost).status()),
              "ADAPTER_IN_USE");
  }
  EXPECT_TRUE(loader_->Unload(Key("a"), Tier::kHost).ok());
}

TEST_F(AdapterLoaderTest, UnloadEndsALoadThatRuns) {
  ops_.CloseGate();
  loader_->Prefetch(Key("a"), users_);
  ops_.AwaitPacker();
  BackgroundThread opener("opener", [&] { ops_.OpenGate(); });
  ASSERT_TRUE(loader_->Unload(Key("a"), Tier::kDisk).ok());
  EXPECT_EQ(loader_->TierOf(Key("a")), Tier::kDisk);
  EXPECT_EQ(ops_.live, 0);
}

TEST_F(AdapterLoaderTest, LoadEndsAtItsDeadline) {
  ops_.CloseGate();
  EXPECT_EQ(
      loader_->Load(Key("a"), users_, Tier::kDevice, absl::Milliseconds(1))
          .code(),
      absl::StatusCode::kDeadlineExceeded);
  ops_.OpenGate();
}

TEST_F(AdapterLoaderTest, EndsWithLoadsThatWaitAndLeasesThatStay) {
  ASSERT_TRUE(Load("a").ok());
  ASSERT_TRUE(Load("b").ok());
  const DeviceLease a = loader_->TryLease(Key("a"));
  const DeviceLease b = loader_->TryLease(Key("b"));
  loader_->Prefetch(Key("c"), users_);
  loader_.reset();
  EXPECT_NE(a.slot(), nullptr);
}

// ---- hints ------------------------------------------------------------------

TEST_F(AdapterLoaderTest, AHintBringsAnAdapterToTheHostOnly) {
  loader_->Hint(Key("a"), users_, 400);
  AwaitLoads(1);
  EXPECT_EQ(loader_->TierOf(Key("a")), Tier::kHost);
  loader_->Hint(Key("a"), users_, 400);  // nothing to do
  ASSERT_TRUE(Load("a").ok());
  EXPECT_EQ(reads_, 1);
}

TEST_F(AdapterLoaderTest, AHintEvictsNothing) {
  Start(/*slots=*/2, /*device_bytes=*/1000, /*host_bytes=*/700);
  ASSERT_TRUE(Load("a", Tier::kHost).ok());
  loader_->Hint(Key("b"), users_, 400);
  ASSERT_TRUE(Load("a").ok());  // a load later nothing has happened
  EXPECT_EQ(loader_->TierOf(Key("b")), Tier::kDisk);
  EXPECT_EQ(reads_, 1);
}

TEST_F(AdapterLoaderTest, AHintThatFailsIsForgotten) {
  loader_->Hint(Key("bad"), users_, 400);
  AwaitLoads(1);
  EXPECT_TRUE(loader_->LoadError(Key("bad")).ok());
  // Who asks for it gets its error at once, not after a while.
  EXPECT_EQ(Load("bad").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(reads_, 2);
}

TEST_F(AdapterLoaderTest, ARequestTakesAHintOver) {
  ops_.CloseGate();
  loader_->Prefetch(Key("x"), users_);
  ops_.AwaitPacker();
  loader_->Hint(Key("a"), users_, 400);
  loader_->Prefetch(Key("a"), users_);
  ops_.OpenGate();
  ASSERT_TRUE(Load("a").ok());
  EXPECT_EQ(loader_->TierOf(Key("a")), Tier::kDevice);
}

}  // namespace
}  // namespace lorikeet
