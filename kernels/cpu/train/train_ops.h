// The CPU's operators of training: Highway SIMD, threads of a pool.
//
// Weights stay in the panels that serving reads (packed.h): a panel, or the
// same 32 columns of every panel, is widened into a thread's scratch memory and
// then used for all rows, so an int8 or bf16 base costs no second copy. Results
// are the same for any number of threads; a target has its own bits.
//
// Thread-compatible.

#ifndef LORIKEET_KERNELS_CPU_TRAIN_TRAIN_OPS_H_
#define LORIKEET_KERNELS_CPU_TRAIN_TRAIN_OPS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/train_ops.h"

namespace lorikeet {

// `pool` outlives the result, and may be the one of the Ops that packed the
// weights. Compute dtype bf16: inputs of products with frozen bf16 weights, in
// both directions, are rounded to bf16; everything else stays f32.
//
// Errors: as CreateCpuOps.
absl::StatusOr<std::unique_ptr<TrainOps>> CreateCpuTrainOps(
    ThreadPool& pool, const CpuOptions& options = {});

}  // namespace lorikeet

#endif  // LORIKEET_KERNELS_CPU_TRAIN_TRAIN_OPS_H_
