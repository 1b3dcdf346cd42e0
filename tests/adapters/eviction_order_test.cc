#include "adapters/eviction_order.h"

#include <gtest/gtest.h>

namespace lorikeet {
namespace {

using Standing = EvictionOrder::Standing;

constexpr absl::Duration kCost = absl::Milliseconds(1);

TEST(EvictionOrderTest, TheLeastRecentlyUsedOfEqualsGoesFirst) {
  EvictionOrder order;
  Standing a, b;
  order.Use(&a, 0.1, kCost);
  order.Use(&b, 0.1, kCost);
  EXPECT_TRUE(EvictionOrder::GoesBefore(a, b));
  EXPECT_FALSE(EvictionOrder::GoesBefore(b, a));
}

TEST(EvictionOrderTest, UseCostAndShareAllCount) {
  EvictionOrder order;
  Standing plain, used, dear, large;
  order.Use(&used, 0.1, kCost);
  order.Use(&used, 0.1, kCost);
  order.Use(&dear, 0.1, 3 * kCost);
  order.Use(&plain, 0.1, kCost);
  order.Use(&large, 0.2, kCost);
  EXPECT_TRUE(EvictionOrder::GoesBefore(large, plain));
  EXPECT_TRUE(EvictionOrder::GoesBefore(plain, used));
  EXPECT_TRUE(EvictionOrder::GoesBefore(used, dear));
}

TEST(EvictionOrderTest, WhatIsWaitedForGoesLast) {
  EvictionOrder order;
  Standing waited, used;
  order.Use(&waited, 1, kCost);
  for (int i = 0; i < 10; ++i) order.Use(&used, 0.1, kCost);
  waited.is_waited_for = true;
  EXPECT_TRUE(EvictionOrder::GoesBefore(used, waited));
  EXPECT_FALSE(EvictionOrder::GoesBefore(waited, used));
}

TEST(EvictionOrderTest, OldFavouritesAreOutlivedAtLast) {
  EvictionOrder order;
  Standing favourite;
  for (int i = 0; i < 10; ++i) order.Use(&favourite, 0.1, kCost);
  int evictions = 0;
  while (true) {
    Standing fresh;
    order.Use(&fresh, 0.1, kCost);
    if (EvictionOrder::GoesBefore(favourite, fresh)) break;
    order.OnEvicted(fresh);
    ++evictions;
    ASSERT_LT(evictions, 100);
  }
  EXPECT_GE(evictions, 9);
}

TEST(EvictionOrderTest, AReloadFromDiskIsDearer) {
  for (const int64_t bytes : {1000, 1000000, 100000000}) {
    EXPECT_GT(ReloadFromDisk(bytes), ReloadFromHost(bytes));
    EXPECT_GT(ReloadFromDisk(2 * bytes), ReloadFromDisk(bytes));
  }
}

}  // namespace
}  // namespace lorikeet
