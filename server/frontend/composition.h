// What a request may ask of its adapters: their scales, which of them can be
// summed, and how large the sum may be.
//
// The sum is exact: y = W x + sum_i scale_i s_i B_i A_i x in every module. What
// an adapter has beyond low-rank parts does not add up; such an adapter answers
// alone and at scale 1.
//
// Pure.

#ifndef LORIKEET_SERVER_FRONTEND_COMPOSITION_H_
#define LORIKEET_SERVER_FRONTEND_COMPOSITION_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/engine/engine.h"
#include "server/frontend/model_info.h"

namespace lorikeet {

inline constexpr size_t kMaxAdapterParts = 16;
inline constexpr float kMaxAdapterScale = 100;

// One adapter of a request as the caller wrote it.
struct AdapterPart {
  std::string name;            // "[tenant/]name[@version]", or an alias
  std::optional<float> scale;  // nullopt = 1
};

// Checks what needs no look-up: number and scales.
// Errors: INVALID_ARGUMENT naming `adapters[i].scale`, value and limits.
absl::Status CheckParts(const std::vector<AdapterPart>& parts);

// Checks the sum of `adapters`, which `parts` named.
// Errors: INVALID_ARGUMENT / COMPOSITION_UNSUPPORTED naming the part and its
// feature; / COMPOSITION_TOO_LARGE naming max_loras, or the total rank and
// max_lora_rank.
absl::Status CheckComposition(const std::vector<AdapterPart>& parts,
                              std::span<const RequestAdapter> adapters,
                              const ModelInfo& model);

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_FRONTEND_COMPOSITION_H_
