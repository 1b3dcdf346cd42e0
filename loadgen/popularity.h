// How often each adapter is asked for, the four shapes of the LoRA serving
// literature (Punica, S-LoRA): all requests for one, every request for another,
// all alike, or a few hot ones and a long tail.
//
// Depends on the seed alone. Thread-compatible.

#ifndef LORIKEET_LOADGEN_POPULARITY_H_
#define LORIKEET_LOADGEN_POPULARITY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/random.h"

namespace lorikeet {

enum class Popularity {
  kIdentical,  // always the first
  kUniform,    // each equally likely
  kZipf,       // the k-th with weight 1 / k^s
  kDistinct,   // in turn
};

class AdapterPicker {
 public:
  // `zipf_s` is the exponent of kZipf; 0 is uniform.
  // REQUIRES: num_adapters >= 1, zipf_s >= 0.
  AdapterPicker(Popularity popularity, size_t num_adapters, double zipf_s,
                uint64_t seed);

  // Returns the next adapter, in [0, num_adapters).
  size_t Next();

 private:
  const Popularity popularity_;
  const size_t num_adapters_;
  // [num_adapters], sums of the weights up to each; for kZipf
  std::vector<double> cumulative_;
  Rng rng_;
  size_t turn_ = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_LOADGEN_POPULARITY_H_
