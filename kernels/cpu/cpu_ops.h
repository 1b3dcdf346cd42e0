// The CPU backend: Highway SIMD, run-time dispatch, threads of a pool.
//
// Rows keep their bits whatever shares the batch, for any number of threads;
// ops.h has the order of arithmetic. A target (instruction set) has its own
// bits. After warm-up a step allocates nothing.
//
// Thread-compatible; packing is thread-safe.

#ifndef LORIKEET_KERNELS_CPU_CPU_OPS_H_
#define LORIKEET_KERNELS_CPU_CPU_OPS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/thread_pool.h"
#include "kernels/ops.h"

namespace lorikeet {

// Returns the backend for the best target of this machine. `pool` outlives it.
std::unique_ptr<Ops> NewCpuOps(ThreadPool& pool);

// The targets that were compiled and run on this machine, best first.
std::vector<std::string> SupportedCpuTargets();

// For tests. REQUIRES: `target` is one of SupportedCpuTargets().
std::unique_ptr<Ops> NewCpuOpsForTarget(ThreadPool& pool,
                                        absl::string_view target);

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_CPU_CPU_OPS_H_
