// DoRA: the gain of each output of an adapted linear,
//   f = m / ||W + s B A||, norms of rows, so that y = f (W x + s B A x) + b,
// computed once when the adapter is packed (Liu et al. 2024).
//
// Of the embedding, whose table is [vocab, hidden], a norm is that of a column:
// one gain per hidden dimension.
//
// Pure.

#ifndef LORIKEET_ADAPTERS_DORA_H_
#define LORIKEET_ADAPTERS_DORA_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "adapters/adapter_weights.h"
#include "adapters/base_weights.h"

namespace lorikeet {

// Returns f [out_dim]. REQUIRES: the module has a magnitude.
//
// Errors: INVALID_ARGUMENT naming the module and the output whose norm is 0.
absl::StatusOr<std::vector<float>> DoraGain(const LoraModule& module,
                                            const BaseWeights& base, Ops& ops);

// A low-rank part as one of the table it belongs to: as it is, but of the
// embedding transposed, [vocab, hidden] += s A^T B^T.
// Errors: RESOURCE_EXHAUSTED.
absl::StatusOr<std::unique_ptr<PackedLora>> PackForTable(
    const LoraModule& module, Ops& ops);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_DORA_H_
