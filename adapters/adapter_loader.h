// An AdapterLoader moves adapters between disk, host memory and device, on
// threads of its own.
//
// One load per version at a time, whoever asks how often. A load that finds no
// room because others are leased waits and tries again when a lease is
// dropped; one that can never succeed fails, and is not tried again within
// kRetryAfter, so that a caller in a loop sees the error and no storm of loads.
// Reading and packing happen outside of all locks.
//
// Thread-safe.

#ifndef LORIKEET_ADAPTERS_ADAPTER_LOADER_H_
#define LORIKEET_ADAPTERS_ADAPTER_LOADER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/adapter_store.h"
#include "adapters/base_weights.h"
#include "adapters/device_pool.h"
#include "adapters/host_cache.h"
#include "base/background_queue.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "kernels/ops.h"

namespace lorikeet {

class AdapterLoader {
 public:
  static constexpr absl::Duration kRetryAfter = absl::Seconds(1);

  struct Options {
    int64_t host_bytes = 0;           // > 0
    int64_t device_bytes = 0;         // > 0
    int device_slots = 0;             // > 0
    int threads = 1;                  // >= 1
    std::optional<BaseWeights> base;  // nullopt: plain LoRA only
    // Reads a version from disk; called on the loader's threads.
    std::function<absl::StatusOr<HostCache::Weights>(const AdapterKey&)> read;
    // Tells which versions changed their tier; no lock is held.
    std::function<void(const std::vector<AdapterKey>&)> moved;
  };
  AdapterLoader(Ops& ops, const Clock& clock, Options options);
  // Waits for running loads; those that wait are dropped.
  ~AdapterLoader();

  // See AdapterStore.
  void Prefetch(const AdapterKey& key, DevicePool::Users users);
  // Brings `key`, of about `size_bytes`, to the host if there is room without
  // evicting anything. A failure is nobody's business.
  void Hint(const AdapterKey& key, DevicePool::Users users, int64_t size_bytes);
  DeviceLease TryLease(const AdapterKey& key) { return device_.TryLease(key); }
  absl::Status LoadError(const AdapterKey& key);
  // After it returns the old callback does not run any more.
  void SetLoadedCallback(std::function<void()> callback);

  // Brings `key` to `tier` and waits.
  // Errors: RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, those of reading.
  absl::Status Load(const AdapterKey& key, DevicePool::Users users, Tier tier,
                    absl::Duration timeout);
  // Ends loads of `key` and frees what is above `tier`; returns the bytes.
  // Errors: FAILED_PRECONDITION while it is leased.
  absl::StatusOr<int64_t> Unload(const AdapterKey& key, Tier tier);
  void SetPinned(const AdapterKey& key, bool pinned);

  Tier TierOf(const AdapterKey& key) const;
  AdapterStore::Residency GetResidency();

 private:
  struct LoadState {
    enum class Phase { kQueued, kRunning, kWaiting, kFailed };
    Phase phase = Phase::kQueued;
    Tier tier = Tier::kDevice;
    bool waits_for_room = false;  // somebody asked by Prefetch
    bool is_cancelled = false;
    bool is_hint = false;    // nobody asked for it
    int64_t size_bytes = 0;  // on the device; 0 until it was read once
    DevicePool::Users users;
    // kFailed. Not final: there was no room, and nobody wanted to wait.
    absl::Status error;
    bool is_final = false;
    absl::Duration failed_at;
  };
  struct Outcome {
    DevicePool::Room room = DevicePool::Room::kFree;
    int64_t size_bytes = 0;  // known better now
    absl::Status status;
  };

  void Loop();
  void Run(const AdapterKey& key);
  Outcome Execute(const AdapterKey& key, Tier tier, int64_t size_bytes,
                  const DevicePool::Users& users,
                  std::vector<AdapterKey>* evicted);
  Outcome ToDevice(const AdapterKey& key, const AdapterWeights& weights,
                   int64_t size_bytes, const DevicePool::Users& users,
                   std::vector<AdapterKey>* evicted);
  void Start(const AdapterKey& key, const DevicePool::Users& users, Tier tier,
             bool waits_for_room) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Finish(const AdapterKey& key, Tier tier, const Outcome& outcome)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Queues loads that wait and would find room now.
  void RetryWaiting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HasTier(const AdapterKey& key, Tier tier) const;

  // What a dropped lease tells; outlives the loader.
  struct Signal {
    Mutex mu;
    AdapterLoader* loader ABSL_GUARDED_BY(mu) = nullptr;
  };

  Ops& ops_;
  const Clock& clock_;
  const Options options_;
  const std::shared_ptr<Signal> signal_;
  HostCache host_;
  DevicePool device_;
  std::atomic<uint32_t> last_generation_{0};
  std::atomic<int64_t> loads_done_{0};
  std::atomic<int64_t> evictions_{0};

  Mutex callback_mu_;
  std::function<void()> callback_ ABSL_GUARDED_BY(callback_mu_);

  Mutex mu_;
  CondVar changed_;
  bool is_ending_ ABSL_GUARDED_BY(mu_) = false;
  int num_waiting_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<AdapterKey> ready_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<AdapterKey, LoadState> loads_ ABSL_GUARDED_BY(mu_);
  std::vector<std::unique_ptr<BackgroundThread>> threads_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_LOADER_H_
