// LinearGroup of gate and up with silu * mul: without adapters, with one, and
// with one per row.

#include <vector>

#include "bench/kernels/bench_matrix.h"

namespace lorikeet::bench {
namespace {

constexpr int64_t kRank = 16;

void BM_GateUp(::benchmark::State& state) {
  const int64_t rows = state.range(0), adapters = state.range(1);
  const LinearId gate = {0, Projection::kGate}, up = {0, Projection::kUp};
  ColdWeights gates(kIntermediate, kHidden, DType::kBF16);
  ColdWeights ups(kIntermediate, kHidden, DType::kBF16);
  std::vector<std::unique_ptr<LoraSlot>> slots;
  LoraBatch lora;
  for (int64_t i = 0; i < adapters; ++i) {
    auto slot = RandomSlot(up, kRank, kHidden, kIntermediate, DType::kBF16);
    auto other = RandomSlot(gate, kRank, kHidden, kIntermediate, DType::kBF16);
    const size_t g = static_cast<size_t>(gate.index());
    slot->entries[g] = std::move(other->entries[g]);
    lora.segments.push_back({static_cast<int32_t>(i * rows / adapters),
                             static_cast<int32_t>((i + 1) * rows / adapters),
                             {{slot.get(), 1.0f}}});
    slots.push_back(std::move(slot));
  }
  const BenchMatrix x(rows, kHidden);
  const BenchMatrix out(rows, kIntermediate);
  Epilogue epilogue;
  epilogue.kind = Epilogue::Kind::kSiluMul;
  for (auto _ : state) {
    const LinearPart parts[] = {{gate, &gates.Next()}, {up, &ups.Next()}};
    CpuBackend().LinearGroup(x.view(), parts, lora, epilogue, out.view(),
                             HostQueue());
  }
  const double base = 2.0 * static_cast<double>(kHidden * kIntermediate);
  const double terms =
      2.0 * static_cast<double>(kRank * (kHidden + kIntermediate));
  SetRates(state, 2 * (base + static_cast<double>(adapters) * terms),
           2 * static_cast<double>(rows) * (base + (adapters > 0 ? terms : 0)));
}
BENCHMARK(BM_GateUp)
    ->ArgNames({"rows", "adapters"})
    ->Args({1, 0})
    ->Args({1, 1})
    ->Args({8, 0})
    ->Args({8, 1})
    ->Args({8, 8})
    ->Args({512, 0})
    ->Args({512, 1})
    ->Args({512, 8})
    ->UseRealTime();

}  // namespace
}  // namespace lorikeet::bench
