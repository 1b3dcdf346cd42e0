// An EvictionOrder says which entry of a cache costs least to lose: the one
// whose reload is cheap for the share of the cache that it takes, that is used
// seldom, and was used long ago (GreedyDual-Size with Frequency, Cherkasova
// 1998). An entry that requests wait for stands behind all others.
//
//   priority = floor + uses * reload cost / share of the cache
//
// The floor rises to the priority of what is evicted, so that what was used
// often once does not stay for ever. Thread-compatible.

#ifndef LORIKEET_ADAPTERS_EVICTION_ORDER_H_
#define LORIKEET_ADAPTERS_EVICTION_ORDER_H_

#include <cstdint>

#include "absl/time/time.h"

namespace lorikeet {

class EvictionOrder {
 public:
  // What an entry has to carry.
  struct Standing {
    double priority = 0;
    int64_t uses = 0;
    uint64_t last_use = 0;
    bool is_waited_for = false;  // set by the cache before it compares
  };

  // Counts a use. `share` is what the entry takes of the scarcest resource, in
  // (0, 1]; `reload` is what it takes to bring it back.
  void Use(Standing* standing, double share, absl::Duration reload);
  void OnEvicted(const Standing& standing);
  // True if `a` goes before `b`.
  static bool GoesBefore(const Standing& a, const Standing& b);

 private:
  double floor_ = 0;
  uint64_t uses_ = 0;
};

// Estimates of a reload; what matters is how they compare. A file is read,
// hashed and checked; packing copies once.
absl::Duration ReloadFromDisk(int64_t bytes);
absl::Duration ReloadFromHost(int64_t bytes);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_EVICTION_ORDER_H_
