// Merged weights of one linear against the copy bandwidth of the machine, which
// is measured beside them: `of_copy` is bytes read and written over what a copy
// moves in the same time.

#include <algorithm>

#include "base/clock.h"
#include "base/thread_pool.h"
#include "bench/kernels/bench_matrix.h"
#include "kernels/cpu/machine_peaks.h"

namespace lorikeet::bench {
namespace {

constexpr LinearId kLinear{0, Projection::kUp};

double CopyBytesPerSecond() {
  static SystemClock& clock = *new SystemClock;
  static ThreadPool& pool = *new ThreadPool(AvailableCores());
  static MachineProbe& probe = *new MachineProbe(pool, clock);
  double best = 0;
  for (int i = 0; i < 5; ++i) best = std::max(best, probe.CopyBytesPerSecond());
  return best;
}

void BM_Merge(::benchmark::State& state) {
  const int64_t rank = state.range(0);
  const DType dtype = static_cast<DType>(state.range(1));
  const int64_t out = state.range(2), in = state.range(3);
  ColdWeights weights(out, in, dtype);
  const auto slot = RandomSlot(kLinear, rank, in, out, DType::kBF16);
  const MergeTerm term{slot->Find(kLinear)->weights.get(), 0.5f};
  std::vector<std::unique_ptr<PackedWeight>> to;
  int64_t bytes = 0;
  while (bytes < 256 << 20) {
    to.push_back(CpuBackend().NewWeight(out, in, dtype));
    CpuBackend().Merge(weights.Next(), {&term, 1}, nullptr, 0, out, *to.back(),
                       HostQueue());
    bytes += to.back()->size_bytes();
  }
  size_t next = 0;
  for (auto _ : state) {
    CpuBackend().Merge(weights.Next(), {&term, 1}, nullptr, 0, out,
                       *to[next++ % to.size()], HostQueue());
  }
  const double moved = 2 * static_cast<double>(to[0]->size_bytes());
  const double elements = static_cast<double>(out * in);
  state.counters["bytes/s"] = ::benchmark::Counter(
      moved, ::benchmark::Counter::kIsIterationInvariantRate,
      ::benchmark::Counter::OneK::kIs1000);
  state.counters["flop/s"] =
      ::benchmark::Counter(2 * static_cast<double>(rank) * elements,
                           ::benchmark::Counter::kIsIterationInvariantRate,
                           ::benchmark::Counter::OneK::kIs1000);
  state.counters["of_copy"] =
      ::benchmark::Counter(moved / CopyBytesPerSecond(),
                           ::benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(Name(dtype));
}

BENCHMARK(BM_Merge)
    ->ArgNames({"rank", "dtype", "out", "in"})
    ->ArgsProduct({{8, 16, 64}, {0, 1, 2, 3}, {kIntermediate}, {kHidden}})
    ->Args({16, 1, 4096, 4096})
    ->UseRealTime();

}  // namespace
}  // namespace lorikeet::bench
