// A HostCache keeps adapter weights in host memory within a byte budget.
//
// Lookup and Insert return a Lease, which keeps the entry: it is never evicted,
// and neither is a pinned one. The budget is hard, so an Insert that would need
// their bytes fails instead of overshooting. Eviction takes what is cheapest to
// lose (eviction_order.h).
//
// Thread-safe. No lock is held while weights are freed.

#ifndef LORIKEET_ADAPTERS_HOST_CACHE_H_
#define LORIKEET_ADAPTERS_HOST_CACHE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "adapters/adapter_key.h"
#include "adapters/adapter_weights.h"
#include "adapters/eviction_order.h"
#include "base/mutex.h"

namespace lorikeet {

class HostCache {
 public:
  using Weights = std::shared_ptr<const AdapterWeights>;
  // Copies share the hold.
  class Lease {
   public:
    const Weights& weights() const { return weights_; }

   private:
    friend class HostCache;
    Lease(Weights weights, std::shared_ptr<void> hold)
        : weights_(std::move(weights)), hold_(std::move(hold)) {}
    Weights weights_;
    std::shared_ptr<void> hold_;
  };

  // REQUIRES: capacity_bytes > 0.
  explicit HostCache(int64_t capacity_bytes);

  // Returns the entry held, or nullopt if `key` is not cached.
  std::optional<Lease> Lookup(const AdapterKey& key);
  // Caches `weights` and holds them; appends what was evicted to `evicted`.
  //
  // Errors: RESOURCE_EXHAUSTED (reason HOST_FULL) naming the bytes, if those
  // that would have to go are held or pinned.
  absl::StatusOr<Lease> Insert(const AdapterKey& key, Weights weights,
                               std::vector<AdapterKey>* evicted);
  // True if `bytes` fit without evicting anything.
  bool HasFreeRoom(int64_t bytes) const;
  // Returns the bytes freed, 0 if it was not cached or is held.
  int64_t Remove(const AdapterKey& key);
  bool Contains(const AdapterKey& key) const;
  // May be called before the entry is there.
  void SetPinned(const AdapterKey& key, bool pinned);

  int64_t capacity_bytes() const { return capacity_bytes_; }
  int64_t used_bytes() const;
  int count() const;

 private:
  struct Entry {
    Weights weights;
    int64_t holds = 0;
    EvictionOrder::Standing standing;
  };
  // Outlives the cache as long as a lease does.
  struct State {
    mutable Mutex mu;
    absl::flat_hash_map<AdapterKey, Entry> entries ABSL_GUARDED_BY(mu);
    absl::flat_hash_set<AdapterKey> pinned ABSL_GUARDED_BY(mu);
    int64_t used_bytes ABSL_GUARDED_BY(mu) = 0;
    EvictionOrder order ABSL_GUARDED_BY(mu);
  };
  Lease Hold(const AdapterKey& key, Entry& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mu);
  bool MakeRoom(int64_t bytes, std::vector<AdapterKey>* evicted,
                std::vector<Weights>* freed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mu);

  const int64_t capacity_bytes_;
  const std::shared_ptr<State> state_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_HOST_CACHE_H_
