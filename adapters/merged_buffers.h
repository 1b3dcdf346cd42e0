// MergedBuffers keep the memory of merged weights for the next variant: fresh
// pages would cost more time than the merge. A weight comes back when its last
// holder lets go of it.
//
// Thread-safe.

#ifndef LORIKEET_ADAPTERS_MERGED_BUFFERS_H_
#define LORIKEET_ADAPTERS_MERGED_BUFFERS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "base/mutex.h"
#include "kernels/ops.h"

namespace lorikeet {

class MergedBuffers {
 public:
  // `ops` must outlive this and every weight.
  explicit MergedBuffers(Ops& ops);

  // Returns a weight for Ops::Merge of the shape and dtype of `like`; null if
  // the backend has none.
  std::shared_ptr<PackedWeight> Take(const PackedWeight& like);
  // Frees what nobody holds; returns the bytes.
  int64_t Trim();

 private:
  using Shape = std::tuple<int64_t, int64_t, DType>;
  // Outlives this as long as a weight does.
  struct Free {
    Mutex mu;
    std::map<Shape, std::vector<std::unique_ptr<PackedWeight>>> weights
        ABSL_GUARDED_BY(mu);
  };

  Ops& ops_;
  const std::shared_ptr<Free> free_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_MERGED_BUFFERS_H_
