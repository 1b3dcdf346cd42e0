#include "base/background_queue.h"

#include <atomic>
#include <vector>

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

// Lets a test hold the queue's thread until it says so.
class Gate {
 public:
  void Wait() {
    MutexLock lock(&mu_);
    has_arrived_ = true;
    changed_.SignalAll();
    while (!is_open_) changed_.Wait(&mu_);
  }
  void WaitUntilArrived() {
    MutexLock lock(&mu_);
    while (!has_arrived_) changed_.Wait(&mu_);
  }
  void Open() {
    MutexLock lock(&mu_);
    is_open_ = true;
    changed_.SignalAll();
  }

 private:
  Mutex mu_;
  CondVar changed_;
  bool has_arrived_ ABSL_GUARDED_BY(mu_) = false;
  bool is_open_ ABSL_GUARDED_BY(mu_) = false;
};

TEST(BackgroundQueueTest, RunsEverythingBeforeItEnds) {
  std::atomic<int> done{0};
  {
    BackgroundQueue queue("test", 2, 1000);
    for (int i = 0; i < 500; ++i) {
      ASSERT_TRUE(queue.TryAdd([&] { ++done; }));
    }
  }
  EXPECT_EQ(done, 500);
}

TEST(BackgroundQueueTest, OneThreadRunsInOrder) {
  std::vector<int> order;
  {
    BackgroundQueue queue("test", 1, 100);
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(queue.TryAdd([&order, i] { order.push_back(i); }));
    }
  }
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(BackgroundQueueTest, AFullQueueRefuses) {
  Gate gate;
  std::atomic<int> done{0};
  {
    BackgroundQueue queue("test", 1, 2);
    ASSERT_TRUE(queue.TryAdd([&] { gate.Wait(); }));
    gate.WaitUntilArrived();  // it runs, it does not wait any more
    EXPECT_TRUE(queue.TryAdd([&] { ++done; }));
    EXPECT_TRUE(queue.TryAdd([&] { ++done; }));
    EXPECT_FALSE(queue.TryAdd([&] { ++done; }));
    gate.Open();
  }
  EXPECT_EQ(done, 2);
}

TEST(BackgroundQueueTest, ThreadsRunAtTheSameTime) {
  Gate first, second;
  BackgroundQueue queue("test", 2, 2);
  ASSERT_TRUE(queue.TryAdd([&] { first.Wait(); }));
  ASSERT_TRUE(queue.TryAdd([&] { second.Wait(); }));
  first.WaitUntilArrived();
  second.WaitUntilArrived();
  first.Open();
  second.Open();
}

TEST(BackgroundThreadTest, IsJoinedByItsDestructor) {
  bool has_run = false;
  {
    BackgroundThread thread("a name of many letters", [&] { has_run = true; });
  }
  EXPECT_TRUE(has_run);
}

}  // namespace
}  // namespace lorikeet
