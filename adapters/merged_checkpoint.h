// Writes a base model with adapters merged in as a Hugging Face directory of
// its own: config.json, the checkpoint in the same files, and what else the
// model's directory has (tokenizer, generation_config.json).
//
// A tied base whose two ends are changed in different ways is untied: lm_head
// gets a tensor of its own, config.json says so. (PEFT merges such an adapter
// into the one shared matrix, so that its merged answers are not its unmerged
// ones.)
//
// One thread.

#ifndef LORIKEET_ADAPTERS_MERGED_CHECKPOINT_H_
#define LORIKEET_ADAPTERS_MERGED_CHECKPOINT_H_

#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "adapters/base_weights.h"
#include "adapters/merge.h"
#include "base/file_system.h"
#include "kernels/ops.h"

namespace lorikeet {

// Writes the model of `base`, which was read from its dir(), merged with
// `adapters` to `output`. `dtype` is that of the merged tensors (nullopt = as
// in the base's file); all others are copied as they are. `output` appears
// whole or not at all.
//
// Errors: ALREADY_EXISTS if there is something at `output`; INVALID_ARGUMENT
// naming adapter and key for what cannot be merged: aLoRA, a bias where the
// base has none, features beside other adapters or at a scale other than 1.
absl::Status WriteMergedCheckpoint(FileSystem& fs, const BaseWeights& base,
                                   Ops& ops,
                                   std::span<const MergeAdapter> adapters,
                                   std::optional<DType> dtype,
                                   const std::string& output);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_MERGED_CHECKPOINT_H_
