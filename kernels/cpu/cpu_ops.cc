#include "kernels/cpu/cpu_ops.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/text.h"
#include "hwy/highway.h"
#include "kernels/cpu/avx512_gemm.h"
#include "kernels/cpu/operators.h"
#include "kernels/cpu/target.h"

namespace lorikeet {
namespace cpu {
namespace {

KernelTable TableOf(int64_t target) {
  KernelTable table{};
  WithTarget(target, [&table] {
    FillGemm(table);
    FillInt8Gemm(table);
    FillLora(table);
    FillMerge(table);
    FillAttention(table);
    FillRmsNorm(table);
    FillRope(table);
    FillElementwise(table);
    FillSample(table);
  });
  // Not targets of their own: they give the same bits, but for bf16_gemm, which
  // is used on request only.
  if (target == HWY_AVX3 && HasAvx512Vnni()) table.int8_gemm = Int8GemmAvx512;
  if (target == HWY_AVX3 && HasAvx512Bf16()) {
    table.bf16_gemm = Bf16GemmAvx512;
    table.bf16_merge = Bf16MergeAvx512;
  }
  return table;
}

// Base weights live as long as the process and merged ones are used again, so
// the chunks may be large.
constexpr int64_t kWeightChunkBytes = int64_t{64} << 20;
// Below this many elements a parallel region costs more than it gains.
constexpr int64_t kWorthThreads = 8192;

}  // namespace

CpuOps::CpuOps(ThreadPool& pool, std::string target, const KernelTable& kernels,
               const CpuOptions& options)
    : pool_(pool),
      target_(std::move(target)),
      kernels_(kernels),
      weights_(kWeightChunkBytes),
      merged_(kWeightChunkBytes),
      rounds_input_(options.compute_dtype == DType::kBF16),
      tiles_(static_cast<size_t>(pool.num_threads())),
      rows_(static_cast<size_t>(pool.num_threads())),
      scans_(static_cast<size_t>(pool.num_threads())) {}

std::unique_ptr<Stream> CpuOps::NewStream() {
  return std::make_unique<HostStream>();
}

std::unique_ptr<PackedWeight> CpuOps::PackWeight(ConstTensor w, DType dtype) {
  return std::make_unique<Weight>(w, dtype, &weights_);
}

std::unique_ptr<PackedWeight> CpuOps::RestoreWeight(int64_t out_dim,
                                                    int64_t in_dim, DType dtype,
                                                    absl::string_view bytes) {
  const int64_t size = GroupsOf(out_dim) * PanelBytes(dtype, in_dim);
  if (static_cast<int64_t>(bytes.size()) != size) return nullptr;
  return std::make_unique<Weight>(out_dim, in_dim, dtype, bytes, &weights_);
}

std::unique_ptr<PackedLora> CpuOps::PackLora(ConstTensor a, ConstTensor b) {
  CHECK_GT(a.rows, 0);
  CHECK_EQ(a.rows, b.cols);
  return std::make_unique<Lora>(RankBlocks(a, a.dtype), Panels(b, b.dtype));
}

std::unique_ptr<PackedLora> CpuOps::PackLoraInt8(ConstTensor a, ConstTensor b) {
  CHECK_GT(a.rows, 0);
  CHECK_EQ(a.rows, b.cols);
  return std::make_unique<Lora>(RankBlocks(a, DType::kI8),
                                Panels::Int8Columns(b));
}

void CpuOps::ForRows(int64_t rows, int64_t cols,
                     absl::FunctionRef<void(int64_t, int64_t)> fn) {
  if (rows == 0) return;
  if (rows * cols < kWorthThreads || pool_.num_threads() == 1) {
    fn(0, rows);
    return;
  }
  const int64_t grain = std::max<int64_t>(1, rows / (4 * pool_.num_threads()));
  pool_.ParallelFor(rows, grain,
                    [&](int64_t begin, int64_t end, int) { fn(begin, end); });
}

}  // namespace cpu

std::vector<std::string> SupportedCpuTargets() {
  std::vector<std::string> names;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    names.push_back(hwy::TargetName(target));
  }
  return names;
}

absl::StatusOr<std::unique_ptr<Ops>> CreateCpuOps(ThreadPool& pool,
                                                  const CpuOptions& options) {
  const std::vector<std::string> targets = SupportedCpuTargets();
  std::string target = options.target;
  if (target.empty()) target = targets.front();
  if (target == "scalar") target = targets.back();
  for (const int64_t bit : hwy::SupportedAndGeneratedTargets()) {
    if (target != hwy::TargetName(bit)) continue;
    const cpu::KernelTable table = cpu::TableOf(bit);
    if (options.compute_dtype == DType::kBF16 && table.bf16_gemm == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat("compute dtype bf16 needs AVX512-BF16; target ", target,
                       " of this CPU has no bf16 dot products"));
    }
    return std::make_unique<cpu::CpuOps>(pool, target, table, options);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("instruction set ", Quote(target), " is not one of ",
                   absl::StrJoin(targets, ", "), ", scalar"));
}

std::unique_ptr<Ops> NewCpuOps(ThreadPool& pool) {
  return CreateCpuOps(pool, {}).value();
}

}  // namespace lorikeet
