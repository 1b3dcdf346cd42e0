// A LoraPlan is a step's use of adapters for the linears of one group, as the
// kernels take it: terms, tiles of work, and the place of each v.
//
// v of (term, linear) lies where LoraLayout puts it if the group has one
// linear. Plain data; pointers are to device memory of packed adapters.

#ifndef LORIKEET_KERNELS_CUDA_LORA_PLAN_H_
#define LORIKEET_KERNELS_CUDA_LORA_PLAN_H_

#include <optional>
#include <span>
#include <vector>

#include "kernels/cuda/kernels.h"
#include "kernels/lora_batch.h"

namespace lorikeet::cuda {

struct LoraPlan {
  std::vector<LoraTermArgs> terms;
  std::vector<ShrinkTile> shrink;
  std::vector<ExpandTile> expand;
  int64_t v_size = 0;  // floats

  bool empty() const { return terms.empty(); }
};

// nullopt = a linear that no adapter touches. REQUIRES: at most kMaxLoraParts.
LoraPlan PlanLora(std::span<const std::optional<LinearId>> linears,
                  const LoraBatch& lora);

}  // namespace lorikeet::cuda

#endif  // LORIKEET_KERNELS_CUDA_LORA_PLAN_H_
