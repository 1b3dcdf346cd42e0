// Merged weights: W' = f (W + sum_i scale_i s_i B_i A_i) of one linear, always
// from the pristine base, f32 accumulation, one rounding to the dtype asked
// for. f is DoRA's gain; rows that an adapter replaces are replaced in W'.
//
// W' is made of rows that do not depend on each other, so it may be made in
// slices, in any order, on any thread. The base is only read.
//
// Immutable; thread-safe.

#ifndef LORIKEET_ADAPTERS_MERGE_H_
#define LORIKEET_ADAPTERS_MERGE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "adapters/adapter_weights.h"
#include "adapters/base_weights.h"
#include "kernels/lora_batch.h"
#include "kernels/ops.h"

namespace lorikeet {

// An adapter in host memory at a scale.
struct MergeAdapter {
  const AdapterWeights* weights = nullptr;
  float scale = 1;
};

class LinearMerge {
 public:
  // Of adapters in host memory, which must outlive this. `id` may be any
  // linear, the embedding too.
  //
  // Errors: INVALID_ARGUMENT as DoraGain.
  static absl::StatusOr<LinearMerge> Create(
      const BaseWeights& base, Ops& ops, LinearId id,
      std::span<const MergeAdapter> adapters);
  // Of adapters on the device; the slots must outlive this. REQUIRES: `id` is
  // not the embedding, whose low-rank part a slot keeps for look-ups.
  static LinearMerge Create(const BaseWeights& base, LinearId id,
                            std::span<const LoraTerm> terms);

  // False: W' is W. Costs nothing.
  static bool Changes(LinearId id, std::span<const MergeAdapter> adapters);

  int64_t rows() const { return weight_->out_dim(); }
  int64_t cols() const { return weight_->in_dim(); }

  // out [n, cols] f32 = rows [row_begin, row_begin + n) of W', not rounded.
  void Rows(int64_t row_begin, Tensor out) const;
  // Makes rows [row_begin, row_end) of `to`, see Ops::Merge. REQUIRES: made of
  // slots, and no row is replaced.
  void Into(Ops& ops, int64_t row_begin, int64_t row_end, PackedWeight& to,
            Stream& stream) const;
  // The whole, rounded once to `dtype`. Needs rows * cols floats meanwhile.
  // Null if the device has no memory for it.
  std::unique_ptr<PackedWeight> Pack(Ops& ops, DType dtype) const;

 private:
  // Rows that take the place of the merged ones: `values` at `tokens`.
  struct Replaced {
    std::span<const int32_t> tokens;
    const PackedWeight* packed = nullptr;  // or
    ConstTensor values;
  };

  LinearMerge(const BaseWeights& base, LinearId id)
      : base_(base), id_(id), weight_(&base.weight(id)) {}
  absl::Status Add(const LoraModule& module, float scale, Ops& ops);
  void ApplyGain(int64_t row_begin, Tensor out) const;
  void ReplaceRows(int64_t row_begin, Tensor out) const;

  BaseWeights base_;
  LinearId id_;
  const PackedWeight* weight_;  // the base's, or a saved one on the device
  ConstTensor saved_;           // a saved one in host memory, or null
  std::vector<std::unique_ptr<PackedLora>> owned_;
  std::vector<MergeTerm> terms_;
  std::vector<float> gain_;  // of rows; of the embedding of columns
  std::vector<Replaced> replaced_;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_MERGE_H_
