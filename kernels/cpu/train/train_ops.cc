#include "kernels/cpu/train/train_ops.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/text.h"
#include "hwy/highway.h"
#include "kernels/cpu/avx512_gemm.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/target.h"
#include "kernels/cpu/train/operators.h"

namespace lorikeet {
namespace cpu {
namespace {

// Below this many elements a parallel region costs more than it gains.
constexpr int64_t kWorthThreads = 8192;

}  // namespace

CpuTrainOps::CpuTrainOps(ThreadPool& pool, const KernelTable& kernels,
                         const TrainKernels& train, bool rounds_input)
    : pool_(pool),
      kernels_(kernels),
      train_(train),
      rounds_input_(rounds_input),
      scratch_(static_cast<size_t>(pool.num_threads())) {}

void CpuTrainOps::ForRows(int64_t rows, int64_t cols,
                          absl::FunctionRef<void(int64_t, int64_t, int)> fn) {
  if (rows == 0) return;
  if (rows * cols < kWorthThreads || pool_.num_threads() == 1) {
    fn(0, rows, 0);
    return;
  }
  pool_.ParallelFor(rows,
                    std::max<int64_t>(1, rows / (4 * pool_.num_threads())), fn);
}

}  // namespace cpu

absl::StatusOr<std::unique_ptr<TrainOps>> CreateCpuTrainOps(
    ThreadPool& pool, const CpuOptions& options) {
  const std::vector<std::string> targets = SupportedCpuTargets();
  const std::string& target = options.target;
  const bool rounds_input = options.compute_dtype == DType::kBF16;
  const std::string wanted = target.empty()       ? targets.front()
                             : target == "scalar" ? targets.back()
                                                  : target;
  for (const int64_t bit : hwy::SupportedAndGeneratedTargets()) {
    if (wanted != hwy::TargetName(bit)) continue;
    cpu::KernelTable kernels{};
    cpu::TrainKernels train{};
    cpu::WithTarget(bit, [&] {
      cpu::FillElementwise(kernels);
      cpu::FillSample(kernels);
      cpu::FillTileProduct(train);
      cpu::FillWiden(train);
      cpu::FillTrainElementwise(train);
      cpu::FillOptimizer(train);
    });
    // Not a target of its own: used on request only.
    if (bit == HWY_AVX3 && cpu::HasAvx512Bf16()) {
      kernels.bf16_gemm = cpu::Bf16GemmAvx512;
    }
    if (rounds_input && kernels.bf16_gemm == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat("compute dtype bf16 needs AVX512-BF16; target ", wanted,
                       " of this CPU has no bf16 dot products"));
    }
    return std::make_unique<cpu::CpuTrainOps>(pool, kernels, train,
                                              rounds_input);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("instruction set ", Quote(target), " is not one of ",
                   absl::StrJoin(targets, ", "), ", scalar"));
}

}  // namespace lorikeet
