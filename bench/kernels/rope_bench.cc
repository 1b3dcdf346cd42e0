#include "bench/kernels/bench_matrix.h"

namespace lorikeet::bench {
namespace {

void BM_Rope(::benchmark::State& state) {
  const int64_t rows = state.range(0);
  const BenchMatrix x(rows, kHeads * kHeadDim);
  const BenchMatrix cos(rows, kHeadDim / 2);
  const BenchMatrix sin(rows, kHeadDim / 2);
  for (auto _ : state) {
    CpuBackend().Rope(x.view(), kHeadDim, cos.view().f32(0), sin.view().f32(0),
                      HostQueue());
  }
  const double elements = static_cast<double>(rows * kHeads * kHeadDim);
  SetRates(state, 8 * elements, 3 * elements);
}
BENCHMARK(BM_Rope)->Arg(1)->Arg(8)->Arg(512)->UseRealTime();

}  // namespace
}  // namespace lorikeet::bench
