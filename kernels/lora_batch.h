// How the rows of a step use adapters.
//
// Adapters live in slots. A segment is a range of rows with the same terms;
// several terms are a composition, and an adapter may appear in several
// segments. Rows outside every segment are base rows. Each (slot, LinearId)
// has its own rank and scaling; nothing is padded to a common rank.
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
#include "kernels/tensor.h"

namespace lorikeet {

using SlotId = StrongInt<struct SlotIdTag, int32_t>;

// A and B of one linear as a backend keeps them. Opaque outside of backends.
class PackedLora {
 public:
  virtual ~PackedLora() = default;
  virtual int64_t rank() const = 0;  // > 0
  virtual int64_t in_dim() const = 0;
  virtual int64_t out_dim() const = 0;
  virtual int64_t size_bytes() const = 0;  // of device memory
};

// One adapter on the device: by LinearId::index(), null = not adapted.
struct LoraSlot {
  uint32_t generation = 0;
  struct Entry {
    std::unique_ptr<PackedLora> weights;
    float scaling = 0;  // alpha / r or alpha / sqrt(r), rounded once to f32
  };
  std::vector<Entry> entries;

  const Entry* Find(LinearId id) const {
    const size_t i = static_cast<size_t>(id.index());
    if (i >= entries.size() || entries[i].weights == nullptr) return nullptr;
    return &entries[i];
  }
};

// One adapter's part in a segment.
struct LoraTerm {
  const LoraSlot* slot = nullptr;
  float scale = 1;  // of the request, multiplies the slot's scaling
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

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_LORA_BATCH_H_
