// A BackgroundQueue runs closures on threads of its own, first come first
// served: reading adapters from disk, writing the registry. The number waiting
// is bounded; a full queue refuses. Also the only way to own a long-lived
// thread outside of base: see BackgroundThread.
//
// Thread-safe.

#ifndef LORIKEET_BASE_BACKGROUND_QUEUE_H_
#define LORIKEET_BASE_BACKGROUND_QUEUE_H_

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"

namespace lorikeet {

// One named thread that runs `body` once; joined on destruction.
class BackgroundThread {
 public:
  BackgroundThread(const std::string& name, std::function<void()> body);
  ~BackgroundThread();
  BackgroundThread(const BackgroundThread&) = delete;
  BackgroundThread& operator=(const BackgroundThread&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class BackgroundQueue {
 public:
  // REQUIRES: num_threads >= 1, max_waiting >= 1.
  BackgroundQueue(const std::string& name, int num_threads, size_t max_waiting);
  // Runs what waits, then joins.
  ~BackgroundQueue();

  // Returns false, without taking `work`, if the queue is full or ending.
  bool TryAdd(std::function<void()> work);

 private:
  void Loop();

  const size_t max_waiting_;
  Mutex mu_;
  CondVar changed_;
  std::deque<std::function<void()>> waiting_ ABSL_GUARDED_BY(mu_);
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::unique_ptr<BackgroundThread>> threads_;
};

}  // namespace lorikeet

#endif  // LORIKEET_BASE_BACKGROUND_QUEUE_H_
