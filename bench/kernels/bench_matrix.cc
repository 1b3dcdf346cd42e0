#include "bench/kernels/bench_matrix.h"

#include <algorithm>
#include <utility>

#include "base/random.h"
#include "kernels/cpu/cpu_ops.h"

namespace lorikeet::bench {
namespace {

// More than the last-level cache of the machines that we measure on.
constexpr int64_t kColdBytes = int64_t{256} << 20;

}  // namespace

Ops& CpuBackend() {
  static ThreadPool pool(AvailableCores());
  static const std::unique_ptr<Ops> ops = NewCpuOps(pool);
  return *ops;
}

Stream& HostQueue() {
  static HostStream stream;
  return stream;
}

BenchMatrix::BenchMatrix(int64_t rows, int64_t cols, DType dtype)
    : bytes_(rows * cols * SizeBytes(dtype)),
      view_{bytes_.data(), dtype, rows, cols, cols} {
  Rng rng(static_cast<uint64_t>(rows * 31 + cols));
  for (int64_t i = 0; i < rows * cols; ++i) {
    StoreElement(dtype, bytes_.data(), i,
                 static_cast<float>(rng.Uniform()) - 0.5f);
  }
}

ColdWeights::ColdWeights(int64_t out_dim, int64_t in_dim, DType dtype) {
  const BenchMatrix w(out_dim, in_dim,
                      dtype == DType::kI8 ? DType::kF32 : dtype);
  const int64_t bytes = out_dim * in_dim * SizeBytes(dtype);
  const int64_t copies = std::max<int64_t>(1, kColdBytes / bytes);
  for (int64_t i = 0; i < copies; ++i) {
    copies_.push_back(CpuBackend().PackWeight(w.view(), dtype));
  }
}

const PackedWeight& ColdWeights::Next() {
  next_ = (next_ + 1) % copies_.size();
  return *copies_[next_];
}

std::unique_ptr<LoraSlot> RandomSlot(LinearId id, int64_t rank, int64_t in_dim,
                                     int64_t out_dim, DType dtype) {
  const BenchMatrix a(rank, in_dim, dtype);
  const BenchMatrix b(out_dim, rank, dtype);
  auto slot = std::make_unique<LoraSlot>();
  slot->entries.resize(static_cast<size_t>(id.index()) + 1);
  auto& entry = slot->entries[static_cast<size_t>(id.index())];
  entry.weights = CpuBackend().PackLora(a.view(), b.view());
  entry.scaling = 2;
  return slot;
}

void SetRates(::benchmark::State& state, double bytes, double flops) {
  using ::benchmark::Counter;
  state.counters["bytes/s"] =
      Counter(bytes, Counter::kIsIterationInvariantRate, Counter::kIs1024);
  state.counters["flop/s"] = Counter(flops, Counter::kIsIterationInvariantRate);
}

}  // namespace lorikeet::bench
