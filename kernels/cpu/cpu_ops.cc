#include "kernels/cpu/cpu_ops.h"

#include <mutex>

#include "base/check.h"
#include "hwy/highway.h"
#include "kernels/cpu/operators.h"

namespace lorikeet {
namespace cpu {
namespace {

// Highway's choice of a target is one per process; it is changed only here, to
// read a table of another target.
std::mutex& TargetMutex() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}

KernelTable TableOf(int64_t target) {
  const std::lock_guard<std::mutex> lock(TargetMutex());
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  KernelTable table;
  FillGemm(table);
  FillLora(table);
  FillAttention(table);
  FillRmsNorm(table);
  FillRope(table);
  FillElementwise(table);
  FillSample(table);
  hwy::SetSupportedTargetsForTest(0);
  return table;
}

// Below this many elements a parallel region costs more than it gains.
constexpr int64_t kWorthThreads = 8192;

}  // namespace

CpuOps::CpuOps(ThreadPool& pool, std::string target, const KernelTable& kernels)
    : pool_(pool),
      target_(std::move(target)),
      kernels_(kernels),
      tiles_(static_cast<size_t>(pool.num_threads())),
      rows_(static_cast<size_t>(pool.num_threads())),
      indices_(static_cast<size_t>(pool.num_threads())) {}

std::unique_ptr<Stream> CpuOps::NewStream() {
  return std::make_unique<HostStream>();
}

std::unique_ptr<PackedWeight> CpuOps::PackWeight(ConstTensor w, DType dtype) {
  return std::make_unique<Weight>(w, dtype);
}

std::unique_ptr<PackedLora> CpuOps::PackLora(ConstTensor a, ConstTensor b) {
  CHECK_GT(a.rows, 0);
  CHECK_EQ(a.rows, b.cols);
  return std::make_unique<Lora>(a, b);
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

std::unique_ptr<Ops> NewCpuOpsForTarget(ThreadPool& pool,
                                        absl::string_view target) {
  for (const int64_t bit : hwy::SupportedAndGeneratedTargets()) {
    if (target != hwy::TargetName(bit)) continue;
    return std::make_unique<cpu::CpuOps>(pool, hwy::TargetName(bit),
                                         cpu::TableOf(bit));
  }
  CHECK(false && "target is not supported");
  return nullptr;
}

std::unique_ptr<Ops> NewCpuOps(ThreadPool& pool) {
  return NewCpuOpsForTarget(pool, SupportedCpuTargets().front());
}

}  // namespace lorikeet
