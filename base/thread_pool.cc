#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"

namespace lorikeet {
namespace {

// About 20 us: longer than the gap between two regions of a step, shorter than
// anything an operator would notice as a busy machine.
constexpr int kSpins = 4000;

// Of a worker between two looks for the next region, and of the caller, which
// has work to do.
constexpr int64_t kReadAheadStep = 1024;
constexpr int64_t kCallerReadAhead = 8192;

void Prefetch(const char* begin, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) {
    __builtin_prefetch(begin + i, /*rw=*/0, /*locality=*/2);
  }
}

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `value` is not `old`; returns the new value.
uint32_t WaitForChange(const std::atomic<uint32_t>& value, uint32_t old,
                       int spins) {
  for (int i = 0; i < spins; ++i) {
    const uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    Pause();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

cpu_set_t AllowedCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  return set;
}

// Keeps the calling thread on the index-th of `allowed`, modulo their number.
void PinTo(const cpu_set_t& allowed, int index) {
  const int count = CPU_COUNT(&allowed);
  if (count == 0) return;
  int left = index % count;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &allowed) || left-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    sched_setaffinity(0, sizeof(one), &one);
    return;
  }
}

}  // namespace

struct ThreadPool::Shared {
  struct Ahead {
    struct Range {
      const char* begin = nullptr;
      int64_t bytes = 0;
    };
    Range ranges[2];
    int count = 0;
  };
  using Task = void (*)(void* context, int worker);

  alignas(64) std::atomic<uint32_t> epoch{0};
  alignas(64) std::atomic<uint32_t> running{0};
  // What is left of a worker's own part of [0, count) of ParallelFor.
  struct Part {
    alignas(64) std::atomic<int64_t> next{0};
    int64_t end = 0;
    Ahead ahead;
  };
  Ahead TakeAhead(int worker) {
    return std::exchange(parts[static_cast<size_t>(worker)].ahead, Ahead());
  }
  std::vector<Part> parts;
  const absl::FunctionRef<void(int)>* task = nullptr;
  std::atomic<bool> stopping{false};
  int spins = kSpins;
  bool pinned = false;
  std::thread::id pinned_caller;
  cpu_set_t allowed;
  std::vector<std::thread> threads;
};

ThreadPool::ThreadPool(int num_threads, bool pinned)
    : num_threads_(num_threads), shared_(std::make_unique<Shared>()) {
  CHECK_GE(num_threads, 1);
  shared_->parts = std::vector<Shared::Part>(static_cast<size_t>(num_threads));
  if (num_threads > AvailableCores()) shared_->spins = 0;
  shared_->pinned = pinned;
  shared_->allowed = AllowedCores();
  for (int worker = 1; worker < num_threads; ++worker) {
    shared_->threads.emplace_back([this, worker] { WorkerLoop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  shared_->stopping = true;
  shared_->epoch.fetch_add(1, std::memory_order_release);
  shared_->epoch.notify_all();
  for (std::thread& t : shared_->threads) t.join();
}

void ThreadPool::PinCaller() {
  const std::thread::id caller = std::this_thread::get_id();
  if (shared_->pinned_caller == caller) return;
  shared_->pinned_caller = caller;
  PinTo(shared_->allowed, 0);
}

void ThreadPool::WorkerLoop(int worker) {
  if (shared_->pinned) PinTo(shared_->allowed, worker);
  uint32_t seen = 0;
  while (true) {
    seen = WaitForChange(shared_->epoch, seen, shared_->spins);
    if (shared_->stopping) return;
    (*shared_->task)(worker);
    const Shared::Ahead ahead = shared_->TakeAhead(worker);
    if (shared_->running.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      shared_->running.notify_all();
    }
    // Until the next region begins.
    for (int r = 0; r < ahead.count; ++r) {
      const auto [begin, bytes] = ahead.ranges[r];
      for (int64_t i = 0; i < bytes; i += kReadAheadStep) {
        if (shared_->epoch.load(std::memory_order_relaxed) != seen) break;
        Prefetch(begin + i, std::min(kReadAheadStep, bytes - i));
      }
    }
  }
}

void ThreadPool::ReadAhead(int worker, const char* begin, int64_t bytes) {
  Shared::Ahead& ahead = shared_->parts[static_cast<size_t>(worker)].ahead;
  if (ahead.count < 2) ahead.ranges[ahead.count++] = {begin, bytes};
}

void ThreadPool::Run(absl::FunctionRef<void(int)> fn) {
  if (shared_->pinned) PinCaller();
  if (num_threads_ == 1) {
    fn(0);
    return;
  }
  const Shared::Ahead ahead = shared_->TakeAhead(0);
  shared_->task = &fn;
  shared_->running.store(static_cast<uint32_t>(num_threads_ - 1),
                         std::memory_order_relaxed);
  shared_->epoch.fetch_add(1, std::memory_order_release);
  shared_->epoch.notify_all();
  fn(0);
  for (int r = 0; r < ahead.count; ++r) {
    Prefetch(ahead.ranges[r].begin,
             std::min(kCallerReadAhead, ahead.ranges[r].bytes));
  }
  uint32_t left = shared_->running.load(std::memory_order_acquire);
  while (left != 0)
    left = WaitForChange(shared_->running, left, shared_->spins);
}

void ThreadPool::ParallelFor(
    int64_t count, int64_t grain,
    absl::FunctionRef<void(int64_t, int64_t, int)> fn) {
  CHECK_GE(grain, 1);
  if (count <= 0) return;
  if (num_threads_ == 1 || count <= grain) {
    for (int64_t begin = 0; begin < count; begin += grain) {
      fn(begin, std::min(count, begin + grain), 0);
    }
    return;
  }
  // Parts are whole pieces, so that these begin at multiples of `grain`.
  const int64_t pieces = (count + grain - 1) / grain;
  std::vector<Shared::Part>& parts = shared_->parts;
  for (int worker = 0; worker < num_threads_; ++worker) {
    Shared::Part& part = parts[static_cast<size_t>(worker)];
    part.next.store(pieces * worker / num_threads_ * grain,
                    std::memory_order_relaxed);
    part.end = std::min(count, pieces * (worker + 1) / num_threads_ * grain);
  }
  Run([&](int worker) {
    for (int i = 0; i < num_threads_; ++i) {
      Shared::Part& part =
          parts[static_cast<size_t>((worker + i) % num_threads_)];
      while (true) {
        const int64_t begin =
            part.next.fetch_add(grain, std::memory_order_relaxed);
        if (begin >= part.end) break;
        fn(begin, std::min(part.end, begin + grain), worker);
      }
    }
  });
}

int AvailableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return std::max(1, CPU_COUNT(&set));
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace lorikeet
