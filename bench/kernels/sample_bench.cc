#include <vector>

#include "bench/kernels/bench_matrix.h"

namespace lorikeet::bench {
namespace {

void Run(::benchmark::State& state, const SamplingRow& row) {
  const int64_t rows = state.range(0);
  const BenchMatrix raw(rows, kVocab);
  const BenchMatrix logits(rows, kVocab);
  const std::vector<SamplingRow> params(static_cast<size_t>(rows), row);
  std::vector<SampledRow> out(static_cast<size_t>(rows));
  const std::vector<int32_t> first(static_cast<size_t>(rows), 0);
  for (auto _ : state) {
    // The operator may overwrite its input.
    CpuBackend().GatherRows(raw.view(), first, logits.view(), HostQueue());
    CpuBackend().Sample(logits.view(), params, out, HostQueue());
  }
  SetRates(state, 4 * static_cast<double>(rows * kVocab), 0);
}

void BM_SampleGreedy(::benchmark::State& state) { Run(state, {}); }
BENCHMARK(BM_SampleGreedy)->Arg(1)->Arg(8)->UseRealTime();

void BM_SampleTemperature(::benchmark::State& state) {
  SamplingRow row;
  row.temperature = 0.8f;
  Run(state, row);
}
BENCHMARK(BM_SampleTemperature)->Arg(1)->Arg(8)->UseRealTime();

void BM_SampleTopKTopP(::benchmark::State& state) {
  SamplingRow row;
  row.temperature = 0.8f;
  row.top_k = 50;
  row.top_p = 0.9f;
  Run(state, row);
}
BENCHMARK(BM_SampleTopKTopP)->Arg(1)->Arg(8)->UseRealTime();

}  // namespace
}  // namespace lorikeet::bench
