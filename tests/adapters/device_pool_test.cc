#include "adapters/device_pool.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

#include "tests/adapters/test_adapter.h"

namespace lorikeet {
namespace {

using testing::Key;
using Room = DevicePool::Room;

class DevicePoolTest : public ::testing::Test {
 protected:
  Room Put(absl::string_view name, int64_t bytes,
           DevicePool::Users users = nullptr) {
    const Room room = pool_.Reserve(Key(name), bytes, &evicted_);
    if (room == Room::kFree) {
      pool_.Publish(Key(name), std::make_shared<LoraSlot>(), std::move(users));
    }
    return room;
  }
  ManualClock clock_;
  int released_ = 0;
  DevicePool pool_{1000, 3, clock_, [this] { ++released_; }};
  std::vector<AdapterKey> evicted_;
};

TEST_F(DevicePoolTest, LeasesOnlyWhatIsPublished) {
  EXPECT_FALSE(pool_.TryLease(Key("a")));
  ASSERT_EQ(pool_.Reserve(Key("a"), 100, &evicted_), Room::kFree);
  EXPECT_FALSE(pool_.TryLease(Key("a")));
  EXPECT_FALSE(pool_.Contains(Key("a")));
  EXPECT_EQ(pool_.used_bytes(), 100);
  pool_.Publish(Key("a"), std::make_shared<LoraSlot>(), nullptr);
  EXPECT_TRUE(pool_.TryLease(Key("a")));
  EXPECT_EQ(pool_.count(), 1);
}

TEST_F(DevicePoolTest, EvictsTheLeastRecentlyUsedForASlot) {
  for (const char* name : {"a", "b", "c"})
    ASSERT_EQ(Put(name, 10), Room::kFree);
  pool_.TryLease(Key("a"));
  ASSERT_EQ(Put("d", 10), Room::kFree);
  EXPECT_EQ(evicted_, std::vector<AdapterKey>{Key("b")});
}

TEST_F(DevicePoolTest, EvictsAsMuchAsTheBytesNeed) {
  ASSERT_EQ(Put("a", 400), Room::kFree);
  ASSERT_EQ(Put("b", 400), Room::kFree);
  ASSERT_EQ(Put("c", 900), Room::kFree);
  EXPECT_EQ(evicted_.size(), 2u);
  EXPECT_EQ(pool_.used_bytes(), 900);
}

TEST_F(DevicePoolTest, NeverEvictsALeasedAdapter) {
  for (const char* name : {"a", "b", "c"})
    ASSERT_EQ(Put(name, 10), Room::kFree);
  DeviceLease a = pool_.TryLease(Key("a"));
  const DeviceLease b = pool_.TryLease(Key("b"));
  const DeviceLease c = pool_.TryLease(Key("c"));
  EXPECT_EQ(Put("d", 10), Room::kBusy);
  EXPECT_EQ(pool_.Remove(Key("a")), 0);
  EXPECT_TRUE(pool_.IsLeased(Key("a")));
  a = DeviceLease();
  EXPECT_EQ(released_, 1);
  EXPECT_EQ(Put("d", 10), Room::kFree);
  EXPECT_EQ(evicted_, std::vector<AdapterKey>{Key("a")});
}

TEST_F(DevicePoolTest, TellsOfTheLastLeaseOnly) {
  ASSERT_EQ(Put("a", 10), Room::kFree);
  DeviceLease first = pool_.TryLease(Key("a"));
  DeviceLease second = pool_.TryLease(Key("a"));
  first = DeviceLease();
  EXPECT_EQ(released_, 0);
  second = DeviceLease();
  EXPECT_EQ(released_, 1);
}

TEST_F(DevicePoolTest, SaysNeverBesideWhatIsPinned) {
  ASSERT_EQ(Put("a", 600), Room::kFree);
  pool_.SetPinned(Key("a"), true);
  EXPECT_EQ(Put("b", 500), Room::kNever);
  EXPECT_EQ(Put("b", 1001), Room::kNever);
  EXPECT_EQ(Put("b", 400), Room::kFree);
  pool_.SetPinned(Key("a"), false);
  EXPECT_EQ(Put("c", 500), Room::kFree);
  EXPECT_EQ(evicted_, std::vector<AdapterKey>{Key("a")});
}

TEST_F(DevicePoolTest, KeepsWhatWasBroughtInForWaitingRequests) {
  const auto users = std::make_shared<std::atomic<int64_t>>(1);
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_EQ(Put(name, 10, users), Room::kFree);
  }
  EXPECT_EQ(Put("d", 10), Room::kBusy);
  // The request took its lease and gave it back: then it has had its turn.
  pool_.TryLease(Key("b"));
  ASSERT_EQ(Put("d", 10), Room::kFree);
  EXPECT_EQ(evicted_, std::vector<AdapterKey>{Key("b")});
  // Nor is it kept for ever, or for nobody.
  ASSERT_EQ(Put("e", 10), Room::kFree) << "d is waited for by nobody";
  EXPECT_EQ(Put("f", 10), Room::kFree);
  clock_.Advance(DevicePool::kGrace);
  EXPECT_EQ(Put("g", 10), Room::kFree);
}

TEST_F(DevicePoolTest, ChangesTheBytesOfAReservation) {
  ASSERT_EQ(Put("a", 500), Room::kFree);
  ASSERT_EQ(pool_.Reserve(Key("b"), 100, &evicted_), Room::kFree);
  ASSERT_EQ(pool_.Reserve(Key("b"), 50, &evicted_), Room::kFree);
  EXPECT_EQ(pool_.used_bytes(), 550);
  ASSERT_EQ(pool_.Reserve(Key("b"), 600, &evicted_), Room::kFree);
  EXPECT_EQ(evicted_, std::vector<AdapterKey>{Key("a")});
  pool_.CancelReservation(Key("b"));
  EXPECT_EQ(pool_.used_bytes(), 0);
}

TEST_F(DevicePoolTest, LeaseMayOutliveThePool) {
  DeviceLease lease;
  int released = 0;
  {
    DevicePool pool(1000, 1, clock_, [&] { ++released; });
    ASSERT_EQ(pool.Reserve(Key("a"), 10, &evicted_), Room::kFree);
    pool.Publish(Key("a"), std::make_shared<LoraSlot>(), nullptr);
    lease = pool.TryLease(Key("a"));
  }
  EXPECT_NE(lease.slot(), nullptr);
  lease = DeviceLease();
  EXPECT_EQ(released, 1);
}

TEST_F(DevicePoolTest, WhatRequestsHoldGoesLast) {
  const auto held = std::make_shared<std::atomic<int64_t>>(1);
  ASSERT_EQ(Put("a", 10, held), Room::kFree);
  for (const char* name : {"b", "c"}) ASSERT_EQ(Put(name, 10), Room::kFree);
  for (int i = 0; i < 5; ++i) {
    pool_.TryLease(Key("b"));
    pool_.TryLease(Key("c"));
  }
  pool_.TryLease(Key("a"));  // has had its turn, and will have another
  ASSERT_EQ(Put("d", 10), Room::kFree);
  ASSERT_EQ(Put("e", 10), Room::kFree);
  EXPECT_EQ(evicted_.size(), 2u);
  EXPECT_TRUE(pool_.Contains(Key("a")));
  *held = 0;
  ASSERT_EQ(Put("f", 10), Room::kFree);
  ASSERT_EQ(Put("g", 10), Room::kFree);
  ASSERT_EQ(Put("h", 10), Room::kFree);
  EXPECT_FALSE(pool_.Contains(Key("a")));
}

TEST_F(DevicePoolTest, WhatIsUsedOftenStaysLongerThanWhatIsNew) {
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_EQ(Put(name, 10), Room::kFree);
  }
  for (int i = 0; i < 5; ++i) pool_.TryLease(Key("a"));
  // Each new one pushes out one that was used once, until their priorities have
  // risen above that of the old favourite.
  int survived = 0;
  for (; pool_.Contains(Key("a")); ++survived) {
    ASSERT_LT(survived, 50);
    ASSERT_EQ(Put(absl::StrCat("n", survived), 10), Room::kFree);
  }
  EXPECT_GE(survived, 5);
}

}  // namespace
}  // namespace lorikeet
