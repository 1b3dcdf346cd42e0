// KvAppend and KvCopy.

#include <numeric>
#include <utility>
#include <vector>

#include "bench/kernels/bench_matrix.h"

namespace lorikeet::bench {
namespace {

constexpr int64_t kBlock = 32;
constexpr int64_t kStride = kKvHeads * kBlock * kHeadDim;

void BM_KvAppend(::benchmark::State& state) {
  const int64_t rows = state.range(0);
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  const BenchMatrix pool_k(blocks, kStride);
  const BenchMatrix pool_v(blocks, kStride);
  const PagedKvView kv = {pool_k.view().data,
                          pool_v.view().data,
                          DType::kF32,
                          kBlock,
                          kStride,
                          kKvHeads,
                          kHeadDim};
  std::vector<int32_t> table(static_cast<size_t>(blocks));
  std::iota(table.begin(), table.end(), 0);
  const SequenceRows part = {0, static_cast<int32_t>(rows), 0, table};
  const BenchMatrix k(rows, kKvHeads * kHeadDim);
  const BenchMatrix v(rows, kKvHeads * kHeadDim);
  for (auto _ : state) {
    CpuBackend().KvAppend(k.view(), v.view(), kv, {&part, 1}, HostQueue());
  }
  SetRates(state, 16 * static_cast<double>(rows * kKvHeads * kHeadDim), 0);
}
BENCHMARK(BM_KvAppend)->Arg(1)->Arg(64)->Arg(512)->UseRealTime();

void BM_KvCopy(::benchmark::State& state) {
  const int64_t count = state.range(0);
  const BenchMatrix pool_k(2 * count, kStride);
  const BenchMatrix pool_v(2 * count, kStride);
  const PagedKvView kv = {pool_k.view().data,
                          pool_v.view().data,
                          DType::kF32,
                          kBlock,
                          kStride,
                          kKvHeads,
                          kHeadDim};
  std::vector<std::pair<int32_t, int32_t>> copies;
  for (int32_t i = 0; i < count; ++i) {
    copies.emplace_back(i, static_cast<int32_t>(count) + i);
  }
  for (auto _ : state) {
    CpuBackend().KvCopy(kv, copies, HostQueue());
  }
  SetRates(state, 16 * static_cast<double>(count * kStride), 0);
}
BENCHMARK(BM_KvCopy)->Arg(1)->Arg(16)->UseRealTime();

}  // namespace
}  // namespace lorikeet::bench
