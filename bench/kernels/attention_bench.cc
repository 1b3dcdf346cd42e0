// PagedAttention: decode of several sequences, and a chunk of prefill.

#include <numeric>
#include <vector>

#include "bench/kernels/bench_matrix.h"

namespace lorikeet::bench {
namespace {

constexpr int64_t kBlock = 32;

// `sequences` sequences with `rows` new rows each behind `context` tokens.
void Run(::benchmark::State& state, int64_t sequences, int64_t rows,
         int64_t context) {
  const int64_t blocks = (context + rows + kBlock - 1) / kBlock;
  const int64_t stride = kKvHeads * kBlock * kHeadDim;
  const BenchMatrix k(sequences * blocks, stride);
  const BenchMatrix v(sequences * blocks, stride);
  const PagedKvView kv = {k.view().data, v.view().data, DType::kF32, kBlock,
                          stride,        kKvHeads,      kHeadDim};
  std::vector<int32_t> table(static_cast<size_t>(sequences * blocks));
  std::iota(table.begin(), table.end(), 0);
  std::vector<SequenceRows> parts;
  for (int64_t s = 0; s < sequences; ++s) {
    parts.push_back({static_cast<int32_t>(s * rows),
                     static_cast<int32_t>((s + 1) * rows),
                     static_cast<int32_t>(context),
                     std::span(table).subspan(static_cast<size_t>(s * blocks),
                                              static_cast<size_t>(blocks))});
  }
  const BenchMatrix q(sequences * rows, kHeads * kHeadDim);
  const BenchMatrix y(sequences * rows, kHeads * kHeadDim);
  for (auto _ : state) {
    CpuBackend().PagedAttention(q.view(), kv, parts, 0.125f, 0, y.view(),
                                HostQueue());
  }
  const double keys =
      static_cast<double>(context) + static_cast<double>(rows + 1) / 2;
  const double per_row = keys * static_cast<double>(kHeads * kHeadDim);
  SetRates(state,
           static_cast<double>(sequences * (context + rows)) * 2 * 4 *
               static_cast<double>(kKvHeads * kHeadDim),
           4 * static_cast<double>(sequences * rows) * per_row);
}

void BM_AttentionDecode(::benchmark::State& state) {
  Run(state, state.range(0), 1, state.range(1));
}
BENCHMARK(BM_AttentionDecode)
    ->ArgNames({"sequences", "context"})
    ->ArgsProduct({{1, 8}, {128, 1024, 4096}})
    ->UseRealTime();

void BM_AttentionPrefill(::benchmark::State& state) {
  Run(state, 1, state.range(0), state.range(1));
}
BENCHMARK(BM_AttentionPrefill)
    ->ArgNames({"rows", "context"})
    ->ArgsProduct({{64, 512}, {0, 1024}})
    ->UseRealTime();

}  // namespace
}  // namespace lorikeet::bench
