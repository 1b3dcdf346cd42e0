// A MergedResidency makes merged variants between steps and keeps a bounded
// number of them. One is made at a time, in slices; it becomes visible when it
// is whole. A variant that requests hold stays; of the others the one that was
// used longest ago makes room for the next.
//
// Engine thread only.

#ifndef LORIKEET_SERVER_ENGINE_MERGED_RESIDENCY_H_
#define LORIKEET_SERVER_ENGINE_MERGED_RESIDENCY_H_

#include <compare>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "adapters/adapter_store.h"
#include "adapters/base_weights.h"
#include "adapters/merged_buffers.h"
#include "adapters/merged_variant.h"
#include "base/clock.h"
#include "server/engine/engine.h"

namespace lorikeet {

// What is merged: versions and scales, in the order of the request.
using MergeKey = std::vector<std::pair<AdapterKey, float>>;
MergeKey MergeKeyOf(const std::vector<RequestAdapter>& adapters);

class MergedResidency {
 public:
  // What is only wished for takes nobody's place that was used so lately.
  static constexpr absl::Duration kMinIdle = absl::Seconds(1);

  // All must outlive this and the variants. REQUIRES: max_variants >= 0.
  MergedResidency(AdapterStore& store, const BaseWeights& base, Ops& ops,
                  const Clock& clock, int max_variants);
  ~MergedResidency();

  // Returns the variant, null if it is not there; notes the use.
  std::shared_ptr<const MergedVariant> Find(const MergeKey& key);
  bool Contains(const MergeKey& key) const { return variants_.contains(key); }
  // Asks for a variant; many calls make one. `is_needed`: a request waits for
  // it; otherwise a failure lately means that it is not tried. Holds the
  // versions until it is made.
  void Want(const std::vector<RequestAdapter>& adapters, bool is_needed);
  // Takes back what was wished for and is not made yet.
  void Unwant(const MergeKey& key);

  // Works for about `budget`, at least one piece. Returns false if there is
  // nothing to do now: no wish, or its adapters or a place are not there yet.
  bool RunSlice(absl::Duration budget);
  // Wishes that cannot be fulfilled, each with its error, since the last call.
  std::vector<std::pair<MergeKey, absl::Status>> TakeFailures();

  // Drops what was made of an adapter and nobody holds, and wishes that nobody
  // waits for; returns the bytes freed.
  int64_t Drop(const std::string& tenant, const std::string& name);
  void DropAll();

  // For the administrator.
  std::vector<MergedInfo> List() const;
  // Places: as many as were asked for, fewer if the device's memory is too
  // small.
  int64_t max_variants() const { return static_cast<int64_t>(max_variants_); }
  // Variants made so far, and the work of the last one.
  int64_t num_made() const { return num_made_; }
  absl::Duration last_merge() const { return last_merge_; }

 private:
  struct Variant {
    std::shared_ptr<const MergedVariant> weights;
    absl::Duration last_use;
  };
  struct Wish {
    MergeKey key;
    std::vector<RequestAdapter> adapters;
    bool is_needed = false;
  };
  // The first wish being fulfilled.
  struct Job;

  bool Begin();
  bool MakeRoom(bool is_needed);
  // Empty: not all are there; failed ones end the wish.
  std::vector<DeviceLease> LeaseAll(const Wish& wish);
  // Publishes what the job made, or settles why it could not.
  void End(absl::Status status);
  void Publish();

  AdapterStore& store_;
  const BaseWeights base_;
  Ops& ops_;
  const Clock& clock_;
  size_t max_variants_;
  const std::unique_ptr<Stream> stream_;
  MergedBuffers buffers_;
  std::map<MergeKey, Variant> variants_;
  std::deque<Wish> wishes_;
  std::unique_ptr<Job> job_;
  std::vector<std::pair<MergeKey, absl::Status>> failures_;
  std::optional<absl::Duration> last_failure_;
  int64_t num_made_ = 0;
  absl::Duration last_merge_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_MERGED_RESIDENCY_H_
