// What the benchmarks of operators share: the backend, random matrices, and
// the shapes of a layer.
//
// One thread.

#ifndef LORIKEET_BENCH_KERNELS_BENCH_MATRIX_H_
#define LORIKEET_BENCH_KERNELS_BENCH_MATRIX_H_

#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/ops.h"

namespace lorikeet::bench {

// The layer of a small real model (SmolLM2-135M).
inline constexpr int64_t kHidden = 576;
inline constexpr int64_t kIntermediate = 1536;
inline constexpr int64_t kHeads = 9;
inline constexpr int64_t kKvHeads = 3;
inline constexpr int64_t kHeadDim = 64;
inline constexpr int64_t kVocab = 49152;

// The CPU backend with all cores of the machine.
Ops& CpuBackend();
Stream& HostQueue();

// Owns a matrix of random numbers.
class BenchMatrix {
 public:
  BenchMatrix(int64_t rows, int64_t cols, DType dtype = DType::kF32);
  Tensor view() const { return view_; }

 private:
  Buffer bytes_;
  Tensor view_;
};

// A weight large enough in copies that it is read from memory, not from cache:
// the copies are used in turn.
class ColdWeights {
 public:
  ColdWeights(int64_t out_dim, int64_t in_dim, DType dtype);
  const PackedWeight& Next();

 private:
  std::vector<std::unique_ptr<PackedWeight>> copies_;
  size_t next_ = 0;
};

// One adapter for one linear.
std::unique_ptr<LoraSlot> RandomSlot(LinearId id, int64_t rank, int64_t in_dim,
                                     int64_t out_dim, DType dtype);

// Bytes and operations of one iteration, shown as rates.
void SetRates(::benchmark::State& state, double bytes, double flops);

}  // namespace lorikeet::bench

#endif  // LORIKEET_BENCH_KERNELS_BENCH_MATRIX_H_
