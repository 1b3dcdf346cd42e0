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

#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "kernels/ops.h"

namespace lorikeet {

struct CpuOptions {
  // One of SupportedCpuTargets(), "scalar" for the slowest, or empty for the
  // best.
  std::string target;
  // kF32: exact. kBF16: x is rounded to bf16 where it meets bf16 weights, and
  // multiplied by the hardware's bf16 dot products; LoRA and the rest stay f32.
  DType compute_dtype = DType::kF32;
};

// The targets that were compiled and run on this machine, best first.
std::vector<std::string> SupportedCpuTargets();

// Returns the backend; `pool` outlives it. INVALID_ARGUMENT for an unknown
// target, FAILED_PRECONDITION for a compute_dtype that the target cannot do:
// each says what there is.
absl::StatusOr<std::unique_ptr<Ops>> CreateCpuOps(ThreadPool& pool,
                                                  const CpuOptions& options);

// With default options.
std::unique_ptr<Ops> NewCpuOps(ThreadPool& pool);

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_CPU_CPU_OPS_H_
