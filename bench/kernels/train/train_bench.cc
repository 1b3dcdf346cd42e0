// The operators of training that take time: products in both directions over
// every type of base, low-rank products, attention with its gradients. 512
// tokens, the shapes of a layer of SmolLM2-135M.

#include <memory>
#include <vector>

#include "bench/kernels/bench_matrix.h"
#include "kernels/cpu/train/train_ops.h"

namespace lorikeet::bench {
namespace {

constexpr int64_t kTokens = 512;
constexpr int64_t kRank = 8;

TrainOps& Backend(DType compute_dtype) {
  static ThreadPool& pool = *new ThreadPool(AvailableCores());
  static TrainOps& f32 = *CreateCpuTrainOps(pool).value().release();
  if (compute_dtype == DType::kF32) return f32;
  static TrainOps* const bf16 = [] {
    auto ops = CreateCpuTrainOps(pool, {"", DType::kBF16});
    return ops.ok() ? ops->release() : nullptr;
  }();
  return bf16 != nullptr ? *bf16 : f32;
}

constexpr double kFlops =
    2.0 * kTokens * static_cast<double>(kHidden * kIntermediate);

// Arguments: type of the base, compute dtype.
void BM_Linear(::benchmark::State& state) {
  const auto dtype = static_cast<DType>(state.range(0));
  TrainOps& ops = Backend(static_cast<DType>(state.range(1)));
  const BenchMatrix x(kTokens, kHidden);
  const BenchMatrix y(kTokens, kIntermediate);
  const BenchMatrix w(kIntermediate, kHidden);
  const auto packed = CpuBackend().PackWeight(w.view(), dtype);
  for (auto _ : state) {
    ops.Linear(x.view(), {packed.get(), {}}, nullptr, y.view(), HostQueue());
  }
  SetRates(state, 0, kFlops);
}

void BM_LinearBackward(::benchmark::State& state) {
  const auto dtype = static_cast<DType>(state.range(0));
  TrainOps& ops = Backend(static_cast<DType>(state.range(1)));
  const BenchMatrix dx(kTokens, kHidden);
  const BenchMatrix dy(kTokens, kIntermediate);
  const BenchMatrix w(kIntermediate, kHidden);
  const auto packed = CpuBackend().PackWeight(w.view(), dtype);
  for (auto _ : state) {
    ops.LinearBackward(dy.view(), {packed.get(), {}}, false, dx.view(),
                       HostQueue());
  }
  SetRates(state, 0, kFlops);
}

void Types(::benchmark::internal::Benchmark* bench) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    bench->Args({static_cast<int64_t>(dtype), 0});
  }
  bench->Args(
      {static_cast<int64_t>(DType::kBF16), static_cast<int64_t>(DType::kBF16)});
}
BENCHMARK(BM_Linear)->Apply(Types)->UseRealTime();
BENCHMARK(BM_LinearBackward)->Apply(Types)->UseRealTime();

// b's gradient: a sum over tokens.
void BM_LowRankGradient(::benchmark::State& state) {
  const BenchMatrix dy(kTokens, kIntermediate);
  const BenchMatrix v(kTokens, kRank);
  const BenchMatrix db(kIntermediate, kRank);
  for (auto _ : state) {
    Backend(DType::kF32)
        .Product(ProductForm::kTN, 1, dy.view(), v.view(), true, db.view(),
                 HostQueue());
  }
  SetRates(state, 0, 2.0 * kTokens * kIntermediate * kRank);
}
BENCHMARK(BM_LowRankGradient)->UseRealTime();

// Argument: tokens of a sequence.
void BM_AttentionBothWays(::benchmark::State& state) {
  const int64_t length = state.range(0);
  const AttentionHeads heads{kHeads, kKvHeads, kHeadDim, 0.125f, 0};
  std::vector<SequenceRows> sequences;
  for (int64_t row = 0; row < kTokens; row += length) {
    sequences.push_back(
        {static_cast<int32_t>(row), static_cast<int32_t>(row + length), 0, {}});
  }
  const BenchMatrix q(kTokens, kHidden), k(kTokens, kKvHeads * kHeadDim);
  const BenchMatrix v(kTokens, kKvHeads * kHeadDim), y(kTokens, kHidden);
  const BenchMatrix lse(kTokens, kHeads), dy(kTokens, kHidden);
  const BenchMatrix dq(kTokens, kHidden), dk(kTokens, kKvHeads * kHeadDim);
  const BenchMatrix dv(kTokens, kKvHeads * kHeadDim);
  TrainOps& ops = Backend(DType::kF32);
  for (auto _ : state) {
    ops.Attention(q.view(), k.view(), v.view(), sequences, heads, y.view(),
                  lse.view(), HostQueue());
    ops.AttentionBackward(q.view(), k.view(), v.view(), y.view(), lse.view(),
                          dy.view(), sequences, heads, dq.view(), dk.view(),
                          dv.view(), HostQueue());
  }
  // Two products forward, five backward, half of each under the diagonal.
  SetRates(state, 0,
           7.0 * static_cast<double>(kTokens * length * kHeads * kHeadDim));
}
BENCHMARK(BM_AttentionBothWays)->Arg(32)->Arg(128)->Arg(512)->UseRealTime();

}  // namespace
}  // namespace lorikeet::bench
