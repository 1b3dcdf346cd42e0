// Gemm from few rows (weights stream from memory) to many (FMA bound).

#include "bench/kernels/bench_matrix.h"

namespace lorikeet::bench {
namespace {

void BM_Gemm(::benchmark::State& state) {
  const int64_t rows = state.range(0);
  const auto dtype = static_cast<DType>(state.range(1));
  const BenchMatrix x(rows, kHidden);
  const BenchMatrix y(rows, kIntermediate);
  ColdWeights weights(kIntermediate, kHidden, dtype);
  for (auto _ : state) {
    CpuBackend().Gemm(x.view(), weights.Next(), nullptr, y.view(), HostQueue());
  }
  const double elements = static_cast<double>(kIntermediate * kHidden);
  SetRates(state, elements * static_cast<double>(SizeBytes(dtype)),
           2 * elements * static_cast<double>(rows));
  state.SetLabel(Name(dtype));
}
BENCHMARK(BM_Gemm)
    ->ArgsProduct({{1, 2, 4, 8, 16, 64, 512},
                   {static_cast<int>(DType::kF32),
                    static_cast<int>(DType::kBF16),
                    static_cast<int>(DType::kF16)}})
    ->UseRealTime();

}  // namespace
}  // namespace lorikeet::bench
