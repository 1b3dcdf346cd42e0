// SiluMul, ResidualAdd, GatherRows.

#include <numeric>
#include <vector>

#include "bench/kernels/bench_matrix.h"

namespace lorikeet::bench {
namespace {

void BM_SiluMul(::benchmark::State& state) {
  const int64_t rows = state.range(0);
  const BenchMatrix gate(rows, kIntermediate);
  const BenchMatrix up(rows, kIntermediate);
  const BenchMatrix y(rows, kIntermediate);
  for (auto _ : state) {
    CpuBackend().SiluMul(gate.view(), up.view(), y.view(), HostQueue());
  }
  const double elements = static_cast<double>(rows * kIntermediate);
  SetRates(state, 12 * elements, 5 * elements);
}
BENCHMARK(BM_SiluMul)->Arg(1)->Arg(8)->Arg(512)->UseRealTime();

void BM_ResidualAdd(::benchmark::State& state) {
  const int64_t rows = state.range(0);
  const BenchMatrix x(rows, kHidden);
  const BenchMatrix y(rows, kHidden);
  for (auto _ : state) {
    CpuBackend().ResidualAdd(x.view(), y.view(), HostQueue());
  }
  const double elements = static_cast<double>(rows * kHidden);
  SetRates(state, 12 * elements, elements);
}
BENCHMARK(BM_ResidualAdd)->Arg(1)->Arg(8)->Arg(512)->UseRealTime();

void BM_GatherRows(::benchmark::State& state) {
  const int64_t rows = state.range(0);
  const BenchMatrix x(rows, kHidden);
  const BenchMatrix y(rows, kHidden);
  std::vector<int32_t> which(static_cast<size_t>(rows));
  std::iota(which.rbegin(), which.rend(), 0);
  for (auto _ : state) {
    CpuBackend().GatherRows(x.view(), which, y.view(), HostQueue());
  }
  SetRates(state, 8 * static_cast<double>(rows * kHidden), 0);
}
BENCHMARK(BM_GatherRows)->Arg(8)->Arg(512)->UseRealTime();

}  // namespace
}  // namespace lorikeet::bench
