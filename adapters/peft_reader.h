// Reads a PEFT LoRA directory: adapter_config.json and
// adapter_model.safetensors, with PEFT's own meaning of every key. Everything
// it does not support is refused by the key's name; every tensor of the file
// is used, or the load fails.
//
// Thread-safe.

#ifndef LORIKEET_ADAPTERS_PEFT_READER_H_
#define LORIKEET_ADAPTERS_PEFT_READER_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "adapters/adapter_weights.h"
#include "adapters/base_weights.h"
#include "base/digest.h"
#include "base/file_system.h"
#include "model/config.h"

namespace lorikeet {

inline constexpr absl::string_view kAdapterConfigFile = "adapter_config.json";
inline constexpr absl::string_view kAdapterModelFile =
    "adapter_model.safetensors";

struct PeftLimits {
  int64_t max_rank = 256;  // --max-lora-rank
  uint64_t max_config_bytes = 4 << 20;
  uint64_t max_model_bytes = uint64_t{8} << 30;
};

// Reads and verifies the adapter in `dir` for a base of `config`. `dtype`
// stores A and B as that type (nullopt = auto: as in the file; kI8: as in the
// file, and in 8 bits when they are packed). Copies of base
// weights in the file are compared with `base`, if it is not null.
//
// Errors: NOT_FOUND naming the file; INVALID_ARGUMENT naming key or tensor,
// value and limit; UNIMPLEMENTED naming the key of a feature we do not have;
// DATA_LOSS for a damaged file. Every error has a reason (base/reason.h):
// ADAPTER_UNSUPPORTED or ADAPTER_INVALID.
absl::StatusOr<std::shared_ptr<const AdapterWeights>> ReadPeftAdapter(
    FileSystem& fs, const std::string& dir, const ModelConfig& config,
    const PeftLimits& limits, std::optional<DType> dtype,
    const BaseWeights* base = nullptr);

// SHA-256 over one line "<name> <size> <SHA-256 of the content, hex>\n" per
// file, sorted by name. Equal content, equal digest.
Digest DigestOfAdapterFiles(absl::string_view config_text,
                            absl::string_view model_bytes);

// The same for the two files in `dir`. Errors: as ReadPeftAdapter.
absl::StatusOr<Digest> DigestOfAdapter(FileSystem& fs, const std::string& dir,
                                       const PeftLimits& limits);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_PEFT_READER_H_
