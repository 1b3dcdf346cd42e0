// An EventLog keeps the last changes of adapters for those who watch.
//
// Thread-safe.

#ifndef LORIKEET_ADAPTERS_EVENT_LOG_H_
#define LORIKEET_ADAPTERS_EVENT_LOG_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/adapter_store.h"
#include "base/mutex.h"

namespace lorikeet {

class EventLog {
 public:
  // The first event gets `first_sequence` + 1. Of another start of the program
  // the numbers should differ, so that an old one is not taken for a new one.
  // REQUIRES: capacity >= 1.
  EventLog(uint64_t first_sequence, size_t capacity);

  void Add(AdapterEvent::Kind kind, AdapterInfo adapter);
  // See AdapterStore::WaitForEvents; `after` 0 = from the oldest that is kept,
  // if none was dropped.
  absl::StatusOr<std::vector<AdapterEvent>> Wait(uint64_t after,
                                                 absl::Duration timeout);
  uint64_t last();

 private:
  const uint64_t first_;
  const size_t capacity_;
  Mutex mu_;
  CondVar added_;
  std::deque<AdapterEvent> events_ ABSL_GUARDED_BY(mu_);
  uint64_t last_ ABSL_GUARDED_BY(mu_);
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_EVENT_LOG_H_
