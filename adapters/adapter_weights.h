// AdapterWeights are one adapter's A and B in host memory, checked against the
// base model, with what the configuration says of them.
//
// Immutable after reading; shared as shared_ptr<const AdapterWeights>.

#ifndef LORIKEET_ADAPTERS_ADAPTER_WEIGHTS_H_
#define LORIKEET_ADAPTERS_ADAPTER_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/digest.h"
#include "kernels/linear_id.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

namespace lorikeet {

// One adapted linear.
struct LoraModule {
  LinearId id;
  std::string name;  // "model.layers.0.self_attn.q_proj"
  int64_t rank = 0;
  double scaling = 0;  // alpha / r or alpha / sqrt(r), after patterns
  ConstTensor a;       // [rank, in_dim], into AdapterWeights::storage
  ConstTensor b;       // [out_dim, rank]
};

struct AdapterWeights {
  Digest digest;
  std::vector<LoraModule> modules;    // ascending LinearId
  std::vector<std::string> warnings;  // ignored keys and the like
  int64_t max_rank = 0;
  double alpha = 0;  // lora_alpha of the config
  bool use_rslora = false;
  int64_t num_parameters = 0;
  int64_t size_bytes = 0;  // of `storage`
  std::vector<Buffer> storage;

  // Packs every module for `ops` (from any thread) as `generation` of a slot.
  std::shared_ptr<const LoraSlot> Pack(Ops& ops, uint32_t generation = 0) const;
};

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_WEIGHTS_H_
