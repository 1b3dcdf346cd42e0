// A DevicePool keeps packed adapters on the device, within a byte budget and a
// number of slots.
//
// Room is reserved before an adapter is packed. To make it, adapters are
// evicted that are cheapest to lose (eviction_order.h), those that requests
// hold after all others; never one that is leased, pinned, or has just been
// brought in and is still waited for (for kGrace, so that two loads do not push
// each other out before the engine has seen either).
//
// Thread-safe. No lock is held while device memory is freed.

#ifndef LORIKEET_ADAPTERS_DEVICE_POOL_H_
#define LORIKEET_ADAPTERS_DEVICE_POOL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "adapters/adapter_key.h"
#include "adapters/adapter_store.h"
#include "adapters/eviction_order.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "kernels/lora_batch.h"

namespace lorikeet {

class DevicePool {
 public:
  using Slot = std::shared_ptr<const LoraSlot>;
  // The number of requests that hold a version.
  using Users = std::shared_ptr<const std::atomic<int64_t>>;
  static constexpr absl::Duration kGrace = absl::Seconds(1);

  // `released` runs when a last lease is dropped, on that thread, possibly
  // after the pool is gone. REQUIRES: capacity_bytes > 0, num_slots > 0.
  DevicePool(int64_t capacity_bytes, int num_slots, const Clock& clock,
             std::function<void()> released);

  enum class Room {
    kFree,   // reserved
    kBusy,   // not now: others are in use
    kNever,  // not beside what is pinned, or not at all
  };
  // Takes one slot and `bytes` out of the budget for `key`, or changes the
  // bytes of its reservation; appends what was evicted.
  Room Reserve(const AdapterKey& key, int64_t bytes,
               std::vector<AdapterKey>* evicted);
  // What Reserve would answer.
  Room TestRoom(const AdapterKey& key, int64_t bytes) const;
  void CancelReservation(const AdapterKey& key);
  // Makes the adapter visible to TryLease. REQUIRES: `key` is reserved.
  void Publish(const AdapterKey& key, Slot slot, Users users);

  // Returns an empty lease if `key` is not on the device.
  DeviceLease TryLease(const AdapterKey& key);
  bool Contains(const AdapterKey& key) const;
  bool IsLeased(const AdapterKey& key) const;
  // Returns the bytes freed, 0 if it is not there or leased.
  int64_t Remove(const AdapterKey& key);
  // May be called before the adapter is there.
  void SetPinned(const AdapterKey& key, bool pinned);

  int64_t capacity_bytes() const { return capacity_bytes_; }
  int num_slots() const { return num_slots_; }
  int64_t used_bytes() const;
  int count() const;  // published ones

 private:
  struct Entry {
    Slot slot;  // null: reserved
    int64_t bytes = 0;
    int64_t leases = 0;
    EvictionOrder::Standing standing;
    Users users;
    // Until the first lease: when it was published.
    bool is_fresh = false;
    absl::Duration published;
  };
  // Outlives the pool as long as a lease does.
  struct State {
    mutable Mutex mu;
    absl::flat_hash_map<AdapterKey, Entry> entries ABSL_GUARDED_BY(mu);
    absl::flat_hash_set<AdapterKey> pinned ABSL_GUARDED_BY(mu);
    int64_t used_bytes ABSL_GUARDED_BY(mu) = 0;
    EvictionOrder order ABSL_GUARDED_BY(mu);
    std::function<void()> released;
  };
  void CountUse(Entry* entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mu);
  // Chooses whom to evict; empty with kFree if nobody has to go.
  Room Plan(const AdapterKey& key, int64_t bytes,
            std::vector<AdapterKey>* victims) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mu);

  const int64_t capacity_bytes_;
  const int num_slots_;
  const Clock& clock_;
  const std::shared_ptr<State> state_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_DEVICE_POOL_H_
