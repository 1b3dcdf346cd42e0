// Refuses weights that are numbers but cannot be meant: an update that would
// drown the base.
//
// Pure.

#ifndef LORIKEET_ADAPTERS_ADAPTER_NORMS_H_
#define LORIKEET_ADAPTERS_ADAPTER_NORMS_H_

#include "absl/status/status.h"
#include "adapters/adapter_weights.h"

namespace lorikeet {

// Largest root mean square of an element of s·B·A, bounded from above by
// |s|·|A|·|B| / sqrt(out·in) with Frobenius norms. Weights of a base are 0.01
// to 0.1; a broken export is off by powers of ten.
inline constexpr double kMaxDeltaRms = 1000;

// Errors: INVALID_ARGUMENT (reason ADAPTER_INVALID) naming module, value and
// limit, also for a norm that is not finite.
absl::Status CheckNorms(const AdapterWeights& weights);

}  // namespace lorikeet

#endif  // LORIKEET_ADAPTERS_ADAPTER_NORMS_H_
