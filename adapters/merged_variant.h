// A MergedVariant is an adapter, or a sum of several, with its linears merged
// into the base's: W' = f (W + sum_i scale_i s_i B_i A_i), rounded once to the
// base's dtype. It needs neither the adapters nor room among them any more.
//
// Merged are the linears of layers. What is no sum with a weight is kept as the
// adapter has it: biases, norms, saved modules, trained tokens; and the
// low-rank parts of the embedding and of lm_head, which on a tied base are two
// changes of one matrix.
//
// A MergedVariantBuilder makes one piece by piece, so that the making fits
// between the steps of a server. The base is only read.
//
// The variant is immutable; the builder is of the thread that calls `ops`.

#ifndef LORIKEET_ADAPTERS_MERGED_VARIANT_H_
#define LORIKEET_ADAPTERS_MERGED_VARIANT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "adapters/adapter_features.h"
#include "adapters/base_weights.h"
#include "adapters/merge.h"
#include "adapters/merged_buffers.h"
#include "kernels/lora_batch.h"
#include "kernels/ops.h"

namespace lorikeet {

// OK, or why requests of an adapter with `features` have no merged variant:
// INVALID_ARGUMENT (reason MERGE_UNSUPPORTED) naming the feature.
absl::Status CheckMergeable(const AdapterFeatures& features);

// The most that the merged weights of one variant take.
int64_t MaxMergedBytes(const BaseWeights& base);

struct MergedVariant {
  std::vector<std::shared_ptr<const LoraSlot>> slots;
  std::vector<LoraTerm> terms;  // of a request's segments; point into `slots`
  int64_t size_bytes = 0;       // of the merged weights
};

class MergedVariantBuilder {
 public:
  // `terms` are the adapters' slots on the device, with the request's scales.
  // All must outlive this.
  MergedVariantBuilder(const BaseWeights& base, Ops& ops,
                       MergedBuffers& buffers, std::vector<LoraTerm> terms);

  bool done() const { return next_ == linears_.size(); }
  // Makes the next piece: some rows of one linear, a fraction of a millisecond
  // of work. REQUIRES: !done(), no piece failed. Errors: RESOURCE_EXHAUSTED
  // (DEVICE_FULL) if the device has no memory for the linear.
  absl::Status RunPiece(Stream& stream);
  // Returns the variant. REQUIRES: done(); once.
  std::shared_ptr<const MergedVariant> Take();

  // Of the merged weights.
  int64_t bytes_total() const { return bytes_total_; }
  int64_t bytes_done() const { return bytes_done_; }

 private:
  void AddLinear(LinearId id);
  void KeepTheRest();
  absl::Status Finish(std::shared_ptr<const PackedWeight> weight);

  const BaseWeights& base_;
  Ops& ops_;
  MergedBuffers& buffers_;
  const std::vector<LoraTerm> terms_;
  std::vector<LinearId> linears_;  // that are merged
  std::shared_ptr<LoraSlot> slot_;
  std::shared_ptr<MergedVariant> variant_;
  int64_t bytes_total_ = 0;
  int64_t bytes_done_ = 0;

  // The linear being made.
  size_t next_ = 0;
  std::optional<LinearMerge> merge_;
  std::shared_ptr<PackedWeight> weight_;
  int64_t next_row_ = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_MERGED_VARIANT_H_
