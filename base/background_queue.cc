#include "base/background_queue.h"

#include <pthread.h>

#include <thread>
#include <utility>

#include "base/check.h"

namespace lorikeet {

struct BackgroundThread::Impl {
  std::thread thread;
};

BackgroundThread::BackgroundThread(const std::string& name,
                                   std::function<void()> body)
    : impl_(std::make_unique<Impl>()) {
  impl_->thread = std::thread(std::move(body));
  // The kernel keeps 15 characters of a thread's name.
  pthread_setname_np(impl_->thread.native_handle(), name.substr(0, 15).c_str());
}

BackgroundThread::~BackgroundThread() { impl_->thread.join(); }

BackgroundQueue::BackgroundQueue(const std::string& name, int num_threads,
                                 size_t max_waiting)
    : max_waiting_(max_waiting) {
  CHECK_GE(num_threads, 1);
  CHECK_GE(max_waiting, 1u);
  for (int i = 0; i < num_threads; ++i) {
    threads_.push_back(
        std::make_unique<BackgroundThread>(name, [this] { Loop(); }));
  }
}

BackgroundQueue::~BackgroundQueue() {
  {
    MutexLock lock(&mu_);
    ending_ = true;
    changed_.SignalAll();
  }
  threads_.clear();
}

bool BackgroundQueue::TryAdd(std::function<void()> work) {
  MutexLock lock(&mu_);
  if (ending_ || waiting_.size() >= max_waiting_) return false;
  waiting_.push_back(std::move(work));
  changed_.Signal();
  return true;
}

void BackgroundQueue::Loop() {
  while (true) {
    std::function<void()> work;
    {
      MutexLock lock(&mu_);
      while (waiting_.empty() && !ending_) changed_.Wait(&mu_);
      if (waiting_.empty()) return;
      work = std::move(waiting_.front());
      waiting_.pop_front();
    }
    work();
  }
}

}  // namespace lorikeet
