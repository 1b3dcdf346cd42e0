// The oracle: every operator in double precision, as its formula is written.
// Slow on purpose; what other backends are measured against in tests.

#ifndef LORIKEET_KERNELS_REFERENCE_REFERENCE_OPS_H_
#define LORIKEET_KERNELS_REFERENCE_REFERENCE_OPS_H_

#include <memory>

#include "kernels/ops.h"

namespace lorikeet {

std::unique_ptr<Ops> NewReferenceOps();

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_REFERENCE_REFERENCE_OPS_H_
