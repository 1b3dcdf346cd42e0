#include "server/scheduler/block_allocator.h"

#include <optional>
#include <vector>

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

class BlockAllocatorTest : public testing::Test {
 protected:
  std::vector<int32_t> forgotten_;
  BlockAllocator allocator_{3, [this](int32_t b) { forgotten_.push_back(b); }};

  void TearDown() override { allocator_.CheckInvariants(); }
};

TEST_F(BlockAllocatorTest, HandsOutEveryBlockOnce) {
  EXPECT_EQ(allocator_.Allocate(), 0);
  EXPECT_EQ(allocator_.Allocate(), 1);
  EXPECT_EQ(allocator_.Allocate(), 2);
  EXPECT_EQ(allocator_.Allocate(), std::nullopt);
  EXPECT_EQ(allocator_.num_used(), 3);
}

TEST_F(BlockAllocatorTest, FreesABlockWithItsLastReference) {
  const int32_t block = *allocator_.Allocate();
  allocator_.AddRef(block);
  allocator_.Release(block);
  EXPECT_EQ(allocator_.num_free(), 2);
  allocator_.Release(block);
  EXPECT_EQ(allocator_.num_free(), 3);
}

TEST_F(BlockAllocatorTest, TakesTheLeastRecentlyUsedCachedBlock) {
  for (int i = 0; i < 3; ++i) {
    allocator_.SetRemembered(*allocator_.Allocate(), true);
  }
  allocator_.Release(1);
  allocator_.Release(0);
  allocator_.Release(2);
  EXPECT_EQ(allocator_.num_cached(), 3);
  EXPECT_EQ(allocator_.Allocate(), 1);
  EXPECT_EQ(allocator_.Allocate(), 0);
  EXPECT_EQ(forgotten_, (std::vector<int32_t>{1, 0}));
}

TEST_F(BlockAllocatorTest, PrefersAFreeBlockToACachedOne) {
  const int32_t block = *allocator_.Allocate();
  allocator_.SetRemembered(block, true);
  allocator_.Release(block);
  EXPECT_NE(allocator_.Allocate(), block);
  EXPECT_TRUE(forgotten_.empty());
}

TEST_F(BlockAllocatorTest, RevivesACachedBlock) {
  const int32_t block = *allocator_.Allocate();
  allocator_.SetRemembered(block, true);
  allocator_.Release(block);
  allocator_.AddRef(block);
  EXPECT_EQ(allocator_.num_cached(), 0);
  EXPECT_EQ(allocator_.num_used(), 1);
}

TEST_F(BlockAllocatorTest, FreesWhatOnlyTheCacheHolds) {
  const int32_t used = *allocator_.Allocate();
  const int32_t cached = *allocator_.Allocate();
  allocator_.SetRemembered(used, true);
  allocator_.SetRemembered(cached, true);
  allocator_.Release(cached);
  EXPECT_EQ(allocator_.FreeCached(), 1);
  EXPECT_EQ(forgotten_, (std::vector<int32_t>{cached}));
  EXPECT_TRUE(allocator_.is_remembered(used));
}

TEST_F(BlockAllocatorTest, FreesACachedBlockThatIsNoLongerRemembered) {
  const int32_t block = *allocator_.Allocate();
  allocator_.SetRemembered(block, true);
  allocator_.Release(block);
  allocator_.SetRemembered(block, false);
  EXPECT_EQ(allocator_.num_free(), 3);
}

}  // namespace
}  // namespace lorikeet
