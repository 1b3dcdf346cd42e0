#include "base/thread_pool.h"

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

class ThreadPoolTest : public ::testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunCallsEachWorkerOnce) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 100; ++round) {
    std::vector<int> calls(static_cast<size_t>(GetParam()));
    pool.Run([&](int worker) { ++calls[static_cast<size_t>(worker)]; });
    for (const int count : calls) ASSERT_EQ(count, 1);
  }
}

TEST_P(ThreadPoolTest, PinnedWorkersStayOnOneCoreEach) {
  ThreadPool pool(GetParam(), /*pinned=*/true);
  std::thread caller([&] {
    for (int round = 0; round < 2; ++round) {
      std::vector<int> cores(static_cast<size_t>(GetParam()));
      pool.Run([&](int worker) {
        cpu_set_t set;
        sched_getaffinity(0, sizeof(set), &set);
        cores[static_cast<size_t>(worker)] = CPU_COUNT(&set);
      });
      for (const int count : cores) EXPECT_EQ(count, 1);
    }
  });
  caller.join();
}

TEST_P(ThreadPoolTest, ParallelForCoversEachIndexOnce) {
  ThreadPool pool(GetParam());
  for (const int64_t count : {0, 1, 7, 64, 1000}) {
    for (const int64_t grain : {1, 3, 64, 5000}) {
      std::vector<int> calls(static_cast<size_t>(count));
      pool.ParallelFor(count, grain,
                       [&](int64_t begin, int64_t end, int worker) {
                         ASSERT_LT(begin, end);
                         ASSERT_LE(end - begin, grain);
                         ASSERT_GE(worker, 0);
                         ASSERT_LT(worker, GetParam());
                         for (int64_t i = begin; i < end; ++i) {
                           ++calls[static_cast<size_t>(i)];
                         }
                       });
      for (const int n : calls) ASSERT_EQ(n, 1);
    }
  }
}

TEST_P(ThreadPoolTest, PiecesBeginAtMultiplesOfTheGrain) {
  ThreadPool pool(GetParam());
  pool.ParallelFor(100, 8, [](int64_t begin, int64_t end, int) {
    EXPECT_EQ(begin % 8, 0);
    EXPECT_TRUE(end == begin + 8 || end == 100);
  });
}

TEST_P(ThreadPoolTest, WhatWorkersWroteIsSeenByTheCaller) {
  ThreadPool pool(GetParam());
  int64_t total = 0;
  std::vector<int64_t> sums(static_cast<size_t>(GetParam()));
  for (int round = 0; round < 200; ++round) {
    pool.Run([&](int worker) { sums[static_cast<size_t>(worker)] += worker; });
    total = 0;
    for (const int64_t s : sums) total += s;
    ASSERT_EQ(total, int64_t{round + 1} * GetParam() * (GetParam() - 1) / 2);
  }
}

TEST_P(ThreadPoolTest, ManyRegionsOneAfterTheOther) {
  ThreadPool pool(GetParam());
  std::atomic<int64_t> calls{0};
  for (int round = 0; round < 1'000; ++round) {
    pool.Run([&](int) { calls.fetch_add(1, std::memory_order_relaxed); });
  }
  EXPECT_EQ(calls.load(), int64_t{1'000} * GetParam());
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, ::testing::Values(1, 2, 3));

TEST(ThreadPoolOfOneTest, RunsOnTheCaller) {
  ThreadPool pool(1);
  const std::thread::id caller = std::this_thread::get_id();
  pool.Run([&](int) { EXPECT_EQ(std::this_thread::get_id(), caller); });
}

TEST(AvailableCoresTest, IsAtLeastOne) { EXPECT_GE(AvailableCores(), 1); }

}  // namespace
}  // namespace lorikeet
