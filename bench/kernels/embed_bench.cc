#include <vector>

#include "bench/kernels/bench_matrix.h"

namespace lorikeet::bench {
namespace {

void BM_Embed(::benchmark::State& state) {
  const int64_t rows = state.range(0);
  const BenchMatrix w(kVocab, kHidden, DType::kBF16);
  const auto table = CpuBackend().PackWeight(w.view(), DType::kBF16);
  std::vector<Token> tokens;
  for (int64_t i = 0; i < rows; ++i) {
    tokens.push_back(static_cast<Token>((i * 7919) % kVocab));
  }
  const BenchMatrix y(rows, kHidden);
  for (auto _ : state) {
    CpuBackend().Embed(*table, tokens, y.view(), HostQueue());
  }
  SetRates(state, 6 * static_cast<double>(rows * kHidden), 0);
}
BENCHMARK(BM_Embed)->Arg(1)->Arg(8)->Arg(512)->UseRealTime();

}  // namespace
}  // namespace lorikeet::bench
