// AdapterWeights are one adapter's tensors in host memory, checked against the
// base model, with what the configuration says of them.
//
// Immutable after reading; shared as shared_ptr<const AdapterWeights>.

#ifndef LORIKEET_ADAPTERS_ADAPTER_WEIGHTS_H_
#define LORIKEET_ADAPTERS_ADAPTER_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "adapters/adapter_features.h"
#include "adapters/base_parameters.h"
#include "adapters/base_weights.h"
#include "base/digest.h"
#include "base/token.h"
#include "kernels/linear_id.h"
#include "kernels/ops.h"
#include "kernels/tensor.h"

namespace lorikeet {

// One linear with a low-rank part. Tensors point into AdapterWeights::storage;
// data is null where there is none.
struct LoraModule {
  LinearId id;
  std::string name;  // "model.layers.0.self_attn.q_proj"
  int64_t rank = 0;
  double scaling = 0;       // alpha / r or alpha / sqrt(r), after patterns
  bool packs_int8 = false;  // --adapter-dtype int8: on the device in 8 bits
  ConstTensor a;            // [rank, in_dim]; of the embedding [rank, vocab]
  ConstTensor b;            // [out_dim, rank]
  ConstTensor magnitude;    // [1, out_dim] f32: DoRA
  ConstTensor b_bias;       // [1, out_dim] f32: lora_bias, scaled like B A x
};

// A parameter of the base that has another value for this adapter's requests.
struct SavedParameter {
  BaseParameter parameter;
  ConstTensor values;  // [rows, cols]; vectors f32
};

// Rows of embed_tokens or lm_head that have other values.
struct ReplacedRows {
  LinearId id;
  std::vector<Token> tokens;  // of the rows, in the order of the file
  ConstTensor rows;           // [tokens.size(), hidden]
};

struct AdapterWeights {
  Digest digest;
  std::vector<LoraModule> modules;  // ascending LinearId
  std::vector<SavedParameter> saved;
  std::vector<ReplacedRows> replaced_rows;
  AdapterFeatures features;
  std::vector<std::string> warnings;  // ignored keys and the like
  int64_t max_rank = 0;
  double alpha = 0;  // lora_alpha of the config
  bool use_rslora = false;
  int64_t num_parameters = 0;
  int64_t size_bytes = 0;  // of `storage`
  std::vector<Buffer> storage;

  // What Pack will take, as far as A and B say it.
  int64_t device_bytes() const;

  // Packs all of it for `ops` (from any thread) as `generation` of a slot.
  // DoRA and lora_bias need `base`; others may pass null.
  //
  // Errors: INVALID_ARGUMENT naming the module and the row if DoRA would divide
  // by a norm of 0; FAILED_PRECONDITION without the base.
  absl::StatusOr<std::shared_ptr<const LoraSlot>> Pack(
      Ops& ops, const BaseWeights* base = nullptr,
      uint32_t generation = 0) const;
};

// A low-rank part as the module wants it; null if the device has no memory.
std::unique_ptr<PackedLora> PackModule(const LoraModule& module, ConstTensor a,
                                       ConstTensor b, Ops& ops);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_WEIGHTS_H_
