// Reads kernel tables of a chosen instruction set.
//
// Thread-safe.

#ifndef LORIKEET_KERNELS_CPU_TARGET_H_
#define LORIKEET_KERNELS_CPU_TARGET_H_

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace lorikeet::cpu {

// Calls `fill` while Highway dispatches to `target`, one of its bits. Its
// choice is one per process, and is changed only here.
void WithTarget(int64_t target, absl::FunctionRef<void()> fill);

}  // namespace lorikeet::cpu

#endif  // LORIKEET_KERNELS_CPU_TARGET_H_
