// How the rows of a step use adapters.
//
// Adapters live in slots. A segment is a range of rows with the same terms;
// several terms are a composition, and an adapter may appear in several
// segments. Rows outside every segment are base rows. Each (slot, LinearId)
// has its own rank and scaling; nothing is padded to a common rank.
//
// A slot may also override what the base has: a weight, a bias, a norm. Such a
// slot is the only term of its segments, at scale 1. Override::weight is the
// one mechanism for rows with a matrix of their own: merged weights, saved
// modules.
//
// A slot's content never changes while a generation is in use: the table is
// read by steps in flight. Plain data; the backend that packed the weights
// owns them.

#ifndef LORIKEET_KERNELS_LORA_BATCH_H_
#define LORIKEET_KERNELS_LORA_BATCH_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/strong_int.h"
#include "kernels/linear_id.h"
#include "kernels/packed_weight.h"
#include "kernels/tensor.h"

namespace lorikeet {

using SlotId = StrongInt<struct SlotIdTag, int32_t>;

// One adapter on the device.
struct LoraSlot {
  uint32_t generation = 0;

  // The low-rank part of one linear: y += scaling * (x A^T) B^T.
  struct Entry {
    std::unique_ptr<PackedLora> weights;  // null = none
    float scaling = 0;  // alpha / r or alpha / sqrt(r), rounded once to f32
  };
  // What takes the place of the base's own in one linear:
  //   y = gain * (x W^T + low-rank part) + bias, then the replaced rows.
  struct Override {
    std::unique_ptr<PackedWeight> weight;  // [out, in]; null = the base's
    std::vector<float> bias;               // [out]; empty = the base's
    std::vector<float> gain;  // [out], DoRA's m / ||W + s B A||; empty = 1
    // Rows of W with other values: y[:, replaced[i]] = x . rows[i], and rows
    // of the embedding. Of kEmbedTokens and kLmHead only.
    std::vector<int32_t> replaced;       // ascending
    std::unique_ptr<PackedWeight> rows;  // [replaced.size(), in]
  };
  std::vector<Entry> entries;                        // by LinearId::index()
  std::vector<std::unique_ptr<Override>> overrides;  // the same, may be null
  std::vector<std::vector<float>> norms;  // by NormId::index(); empty = base's

  // Null if there is none.
  const Entry* Find(LinearId id) const {
    const size_t i = static_cast<size_t>(id.index());
    if (i >= entries.size() || entries[i].weights == nullptr) return nullptr;
    return &entries[i];
  }
  const Override* FindOverride(LinearId id) const {
    const size_t i = static_cast<size_t>(id.index());
    return i < overrides.size() ? overrides[i].get() : nullptr;
  }
  const float* FindNorm(NormId id) const {
    const size_t i = static_cast<size_t>(id.index());
    return i < norms.size() && !norms[i].empty() ? norms[i].data() : nullptr;
  }
  // Of device memory.
  int64_t size_bytes() const;
};

// One adapter's part in a segment.
struct LoraTerm {
  const LoraSlot* slot = nullptr;
  float scale = 1;  // of the request, multiplies the slot's scaling
  friend bool operator==(const LoraTerm&, const LoraTerm&) = default;
};

struct LoraSegment {
  int32_t row_begin = 0;
  int32_t row_end = 0;
  std::vector<LoraTerm> terms;
};

// Segments are disjoint, not empty, and ascend by row.
struct LoraBatch {
  std::vector<LoraSegment> segments;
  bool empty() const { return segments.empty(); }
};

// Rows that use the same override; null = what the base has.
template <typename T>
struct RowRange {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  const T* value = nullptr;
};

// Cuts [0, rows) where `find(slot)` changes. Empty if it is null everywhere:
// the common case, which costs a look at each segment.
template <typename T, typename Find>
std::vector<RowRange<T>> SplitRows(const LoraBatch& lora, int64_t rows,
                                   Find find) {
  std::vector<RowRange<T>> ranges;
  const auto add = [&](int64_t end, const T* value) {
    const int64_t begin = ranges.empty() ? 0 : ranges.back().row_end;
    if (begin == end) return;
    if (!ranges.empty() && ranges.back().value == value) {
      ranges.back().row_end = end;
    } else {
      ranges.push_back({begin, end, value});
    }
  };
  for (const LoraSegment& segment : lora.segments) {
    const T* value = nullptr;
    for (const LoraTerm& term : segment.terms) {
      if (value == nullptr) value = find(*term.slot);
    }
    if (value == nullptr) continue;
    add(segment.row_begin, nullptr);
    add(segment.row_end, value);
  }
  if (!ranges.empty()) add(rows, nullptr);
  return ranges;
}

// The rows' overrides of one linear, and of one norm.
std::vector<RowRange<LoraSlot::Override>> SplitRows(const LoraBatch& lora,
                                                    LinearId id, int64_t rows);
std::vector<RowRange<float>> SplitRows(const LoraBatch& lora, NormId id,
                                       int64_t rows);

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_LORA_BATCH_H_
