// A ThreadPool runs short parallel regions on a fixed set of threads.
//
// The caller takes part, so a pool of one thread has no threads of its own.
// Workers spin briefly between regions, since regions of a step follow each
// other within microseconds, and then sleep; with more threads than cores they
// sleep at once. Nothing is allocated per region.
// One region at a time; Run and ParallelFor are for one owner thread.

#ifndef LORIKEET_BASE_THREAD_POOL_H_
#define LORIKEET_BASE_THREAD_POOL_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"

namespace lorikeet {

class ThreadPool {
 public:
  // With `pinned` each worker stays on one of the cores that the process may
  // use, the caller of Run on the first. REQUIRES: num_threads >= 1.
  explicit ThreadPool(int num_threads, bool pinned = false);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls fn(worker) once for each worker in [0, num_threads) and returns when
  // all have returned.
  void Run(absl::FunctionRef<void(int worker)> fn);

  // Calls fn(begin, end, worker) over pieces of [0, count) of at most `grain`
  // indices. Each worker goes through a contiguous part of its own, so that it
  // reads memory in order, and then helps the others with theirs.
  // REQUIRES: grain >= 1.
  void ParallelFor(
      int64_t count, int64_t grain,
      absl::FunctionRef<void(int64_t begin, int64_t end, int worker)> fn);

  // Hints that `worker` will read these bytes after the next region: once it
  // has done its part of that region, it brings them into its cache while it
  // would only wait. The caller's own worker 0 takes the first few KB alone. At
  // most two ranges a worker and region; more are ignored.
  void ReadAhead(int worker, const char* begin, int64_t bytes);

 private:
  struct Shared;
  void WorkerLoop(int worker);
  // Moves the calling thread to its core, once.
  void PinCaller();

  const int num_threads_;
  std::unique_ptr<Shared> shared_;
};

// Returns the number of cores this process may use.
int AvailableCores();

}  // namespace lorikeet

#endif  // LORIKEET_BASE_THREAD_POOL_H_
