// LoraShrink and LoraExpand: rows of distinct adapters, or of one; and rows of
// merged weights.

#include <vector>

#include "bench/kernels/bench_matrix.h"

namespace lorikeet::bench {
namespace {

constexpr LinearId kLinear = {0, Projection::kGate};

// `rows` rows; with `distinct` each has an adapter of its own.
struct Batch {
  Batch(int64_t rows, int64_t rank, bool distinct) {
    const int64_t count = distinct ? rows : 1;
    for (int64_t i = 0; i < count; ++i) {
      slots.push_back(
          RandomSlot(kLinear, rank, kHidden, kIntermediate, DType::kBF16));
      const int64_t begin = distinct ? i : 0;
      const int64_t end = distinct ? i + 1 : rows;
      lora.segments.push_back({static_cast<int32_t>(begin),
                               static_cast<int32_t>(end),
                               {{slots.back().get(), 1.0f}}});
    }
  }
  std::vector<std::unique_ptr<LoraSlot>> slots;
  LoraBatch lora;
};

void BM_LoraShrink(::benchmark::State& state) {
  const int64_t rows = state.range(0), rank = state.range(1);
  const Batch batch(rows, rank, state.range(2) != 0);
  const BenchMatrix x(rows, kHidden);
  const BenchMatrix v(rows, rank);
  for (auto _ : state) {
    CpuBackend().LoraShrink(kLinear, batch.lora, x.view(), v.view().f32(0),
                            HostQueue());
  }
  const double adapters = static_cast<double>(batch.slots.size());
  const double elements = static_cast<double>(rank * kHidden);
  SetRates(state, 2 * adapters * elements,
           2 * static_cast<double>(rows) * elements);
}

void BM_LoraExpand(::benchmark::State& state) {
  const int64_t rows = state.range(0), rank = state.range(1);
  const Batch batch(rows, rank, state.range(2) != 0);
  const BenchMatrix v(rows, rank);
  const BenchMatrix y(rows, kIntermediate);
  for (auto _ : state) {
    CpuBackend().LoraExpand(kLinear, batch.lora, v.view().f32(0), y.view(),
                            HostQueue());
  }
  const double adapters = static_cast<double>(batch.slots.size());
  const double elements = static_cast<double>(rank * kIntermediate);
  SetRates(state, 2 * adapters * elements,
           2 * static_cast<double>(rows) * elements);
}

void BM_MergeRows(::benchmark::State& state) {
  const int64_t rank = state.range(0);
  constexpr int64_t kRows = 64;
  ColdWeights weights(kIntermediate, kHidden, DType::kBF16);
  const Batch batch(1, rank, false);
  const MergeTerm term{batch.slots[0]->Find(kLinear)->weights.get(), 0.5f};
  const BenchMatrix out(kRows, kHidden);
  int64_t row = 0;
  for (auto _ : state) {
    CpuBackend().MergeRows(weights.Next(), {&term, 1}, row, out.view());
    row = (row + kRows) % (kIntermediate - kRows);
  }
  const double elements = static_cast<double>(kRows * kHidden);
  SetRates(state, 2 * elements, 2 * static_cast<double>(rank) * elements);
}

const std::vector<std::vector<int64_t>> kArgs = {
    {1, 8, 32}, {8, 16, 64}, {0, 1}};
BENCHMARK(BM_LoraShrink)
    ->ArgNames({"rows", "rank", "distinct"})
    ->ArgsProduct(kArgs)
    ->UseRealTime();
BENCHMARK(BM_LoraExpand)
    ->ArgNames({"rows", "rank", "distinct"})
    ->ArgsProduct(kArgs)
    ->UseRealTime();

BENCHMARK(BM_MergeRows)->ArgName("rank")->Arg(8)->Arg(16)->UseRealTime();

}  // namespace
}  // namespace lorikeet::bench
