#include <vector>

#include "bench/kernels/bench_matrix.h"

namespace lorikeet::bench {
namespace {

void BM_RmsNorm(::benchmark::State& state) {
  const int64_t rows = state.range(0);
  const BenchMatrix x(rows, kHidden);
  const BenchMatrix y(rows, kHidden);
  const std::vector<float> weight(static_cast<size_t>(kHidden), 1.0f);
  for (auto _ : state) {
    CpuBackend().RmsNorm(x.view(), weight.data(), 1e-6f, y.view(), HostQueue());
  }
  const double elements = static_cast<double>(rows * kHidden);
  SetRates(state, 8 * elements, 4 * elements);
}
BENCHMARK(BM_RmsNorm)->Arg(1)->Arg(8)->Arg(512)->UseRealTime();

}  // namespace
}  // namespace lorikeet::bench
