#include "adapters/host_cache.h"

#include <gtest/gtest.h>

#include "base/reason.h"
#include "tests/adapters/test_adapter.h"

namespace lorikeet {
namespace {

using testing::FakeWeights;
using testing::Key;

class HostCacheTest : public ::testing::Test {
 protected:
  absl::Status Put(absl::string_view name, int64_t bytes) {
    return cache_.Insert(Key(name), FakeWeights(bytes), &evicted_).status();
  }
  HostCache cache_{1000};
  std::vector<AdapterKey> evicted_;
};

TEST_F(HostCacheTest, FindsWhatWasInserted) {
  ASSERT_TRUE(Put("a", 400).ok());
  const auto lease = cache_.Lookup(Key("a"));
  ASSERT_TRUE(lease.has_value());
  EXPECT_EQ(lease->weights()->size_bytes, 400);
  EXPECT_FALSE(cache_.Lookup(Key("b")).has_value());
  EXPECT_EQ(cache_.used_bytes(), 400);
}

TEST_F(HostCacheTest, EvictsWhatWasUsedLongestAgo) {
  ASSERT_TRUE(Put("a", 400).ok());
  ASSERT_TRUE(Put("b", 400).ok());
  cache_.Lookup(Key("a"));
  ASSERT_TRUE(Put("c", 400).ok());
  EXPECT_EQ(evicted_, std::vector<AdapterKey>{Key("b")});
  EXPECT_TRUE(cache_.Contains(Key("a")));
  EXPECT_EQ(cache_.used_bytes(), 800);
}

TEST_F(HostCacheTest, RefusesInsertWhenEverythingIsHeldOrPinned) {
  ASSERT_TRUE(Put("a", 400).ok());
  ASSERT_TRUE(Put("b", 400).ok());
  const auto lease = cache_.Lookup(Key("a"));
  cache_.SetPinned(Key("b"), true);
  const absl::Status status = Put("c", 400);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "HOST_FULL");
  EXPECT_TRUE(evicted_.empty());
  cache_.SetPinned(Key("b"), false);
  EXPECT_TRUE(Put("c", 400).ok());
  EXPECT_TRUE(cache_.Contains(Key("a")));
}

TEST_F(HostCacheTest, EvictsNobodyForWhatCannotFit) {
  ASSERT_TRUE(Put("a", 400).ok());
  EXPECT_FALSE(Put("b", 1001).ok());
  EXPECT_TRUE(cache_.Contains(Key("a")));
}

TEST_F(HostCacheTest, DoesNotRemoveWhatIsHeld) {
  ASSERT_TRUE(Put("a", 400).ok());
  {
    const auto lease = cache_.Lookup(Key("a"));
    EXPECT_EQ(cache_.Remove(Key("a")), 0);
  }
  EXPECT_EQ(cache_.Remove(Key("a")), 400);
  EXPECT_EQ(cache_.Remove(Key("a")), 0);
  EXPECT_EQ(cache_.used_bytes(), 0);
}

TEST_F(HostCacheTest, LeaseMayOutliveTheCache) {
  std::optional<HostCache::Lease> lease;
  {
    HostCache cache(1000);
    std::vector<AdapterKey> evicted;
    lease = *cache.Insert(Key("a"), FakeWeights(400), &evicted);
  }
  EXPECT_EQ(lease->weights()->size_bytes, 400);
}

TEST_F(HostCacheTest, KeepsWhatIsDearToReloadForItsBytes) {
  // Reading a small one costs nearly as much as reading a large one.
  ASSERT_TRUE(Put("small", 100).ok());
  ASSERT_TRUE(Put("large", 800).ok());
  ASSERT_TRUE(Put("new", 500).ok());
  EXPECT_EQ(evicted_, std::vector<AdapterKey>{Key("large")});
  EXPECT_TRUE(cache_.Contains(Key("small")));
}

TEST_F(HostCacheTest, KnowsHowMuchIsFreeWithoutEvicting) {
  EXPECT_TRUE(cache_.HasFreeRoom(1000));
  ASSERT_TRUE(Put("a", 400).ok());
  EXPECT_TRUE(cache_.HasFreeRoom(600));
  EXPECT_FALSE(cache_.HasFreeRoom(601));
}

}  // namespace
}  // namespace lorikeet
