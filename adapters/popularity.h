// A Popularity counts how often versions were asked for lately: each request
// counts one, and half of that after every half-life.
//
// Bounded: of more than kMaxKeys the least popular are forgotten. Time is
// given. Thread-compatible.

#ifndef LORIKEET_ADAPTERS_POPULARITY_H_
#define LORIKEET_ADAPTERS_POPULARITY_H_

#include <cstddef>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "adapters/adapter_key.h"

namespace lorikeet {

class Popularity {
 public:
  static constexpr absl::Duration kHalfLife = absl::Minutes(10);
  static constexpr size_t kMaxKeys = 4096;

  // `now` never goes back.
  void Count(const AdapterKey& key, absl::Duration now);
  double Of(const AdapterKey& key, absl::Duration now) const;
  // Returns up to `n` keys, the most popular first; none that was asked for
  // less than once a half-life.
  std::vector<AdapterKey> Top(size_t n, absl::Duration now) const;
  void Forget(const AdapterKey& key) { scores_.erase(key); }

 private:
  struct Score {
    double value = 0;
    absl::Duration time;  // of `value`
  };
  static double At(const Score& score, absl::Duration now);
  void Prune(absl::Duration now);

  absl::flat_hash_map<AdapterKey, Score> scores_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_POPULARITY_H_
