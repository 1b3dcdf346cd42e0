#include "kernels/cpu/machine_peaks.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "kernels/tensor.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/machine_peaks.cc"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lorikeet {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Adds up `count` floats with eight independent chains, so that loads are the
// limit. REQUIRES: count is a multiple of 8 vectors.
float ReadAll(const float* data, int64_t count) {
  const hn::ScalableTag<float> d;
  const int64_t n = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  auto s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  for (int64_t i = 0; i + 8 * n <= count; i += 8 * n) {
    s0 = hn::Add(s0, hn::Load(d, data + i));
    s1 = hn::Add(s1, hn::Load(d, data + i + n));
    s2 = hn::Add(s2, hn::Load(d, data + i + 2 * n));
    s3 = hn::Add(s3, hn::Load(d, data + i + 3 * n));
    s4 = hn::Add(s4, hn::Load(d, data + i + 4 * n));
    s5 = hn::Add(s5, hn::Load(d, data + i + 5 * n));
    s6 = hn::Add(s6, hn::Load(d, data + i + 6 * n));
    s7 = hn::Add(s7, hn::Load(d, data + i + 7 * n));
  }
  const auto s = hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)),
                         hn::Add(hn::Add(s4, s5), hn::Add(s6, s7)));
  return hn::GetLane(hn::SumOfLanes(d, s));
}

// Runs `rounds` rounds of twelve independent FMA chains (latency 4-5, two
// ports: ten in flight at least); returns the number of multiply-adds.
int64_t MultiplyAdd(int64_t rounds, float* sink) {
  const hn::ScalableTag<float> d;
  const auto a = hn::Set(d, 0.999f), b = hn::Set(d, 1e-3f);
  // Each begins elsewhere: the compiler merges chains that are equal.
  auto s0 = hn::Iota(d, 0.0f), s1 = hn::Iota(d, 1.0f), s2 = hn::Iota(d, 2.0f);
  auto s3 = hn::Iota(d, 3.0f), s4 = hn::Iota(d, 4.0f), s5 = hn::Iota(d, 5.0f);
  auto s6 = hn::Iota(d, 6.0f), s7 = hn::Iota(d, 7.0f), s8 = hn::Iota(d, 8.0f);
  auto s9 = hn::Iota(d, 9.0f), s10 = hn::Iota(d, 10.0f);
  auto s11 = hn::Iota(d, 11.0f);
  for (int64_t i = 0; i < rounds; ++i) {
    s0 = hn::MulAdd(s0, a, b);
    s1 = hn::MulAdd(s1, a, b);
    s2 = hn::MulAdd(s2, a, b);
    s3 = hn::MulAdd(s3, a, b);
    s4 = hn::MulAdd(s4, a, b);
    s5 = hn::MulAdd(s5, a, b);
    s6 = hn::MulAdd(s6, a, b);
    s7 = hn::MulAdd(s7, a, b);
    s8 = hn::MulAdd(s8, a, b);
    s9 = hn::MulAdd(s9, a, b);
    s10 = hn::MulAdd(s10, a, b);
    s11 = hn::MulAdd(s11, a, b);
  }
  auto s = hn::Add(hn::Add(s0, s1), hn::Add(s2, s3));
  s = hn::Add(s, hn::Add(hn::Add(s4, s5), hn::Add(s6, s7)));
  s = hn::Add(s, hn::Add(hn::Add(s8, s9), hn::Add(s10, s11)));
  *sink = hn::GetLane(hn::SumOfLanes(d, s));
  return rounds * 12 * static_cast<int64_t>(hn::Lanes(d));
}

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet {
namespace {

HWY_EXPORT(ReadAll);
HWY_EXPORT(MultiplyAdd);

constexpr int kRounds = 7;
// Several times the largest last-level cache share of a small machine.
constexpr int64_t kReadBytes = int64_t{512} << 20;
constexpr int64_t kPieceFloats = int64_t{1} << 18;
constexpr int64_t kFmaRounds = 4'000'000;

double MeasureRead(ThreadPool& pool, const Clock& clock) {
  const Buffer buffer(kReadBytes);
  const int64_t pieces = kReadBytes / 4 / kPieceFloats;
  std::atomic<float> sink{0};
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const absl::Duration start = clock.Now();
    pool.ParallelFor(pieces, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const float* piece = buffer.as<float>() + p * kPieceFloats;
        sink.store(HWY_DYNAMIC_DISPATCH(ReadAll)(piece, kPieceFloats),
                   std::memory_order_relaxed);
      }
    });
    const double seconds = absl::ToDoubleSeconds(clock.Now() - start);
    best = std::max(best, static_cast<double>(kReadBytes) / seconds);
  }
  return best;
}

double MeasureFma(ThreadPool& pool, const Clock& clock) {
  std::vector<float> sinks(static_cast<size_t>(pool.num_threads()));
  std::atomic<int64_t> done{0};
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    done = 0;
    const absl::Duration start = clock.Now();
    pool.Run([&](int worker) {
      done += HWY_DYNAMIC_DISPATCH(MultiplyAdd)(
          kFmaRounds, &sinks[static_cast<size_t>(worker)]);
    });
    const double seconds = absl::ToDoubleSeconds(clock.Now() - start);
    best = std::max(best, 2.0 * static_cast<double>(done) / seconds);
  }
  return best;
}

}  // namespace

MachinePeaks MeasureMachinePeaks(ThreadPool& pool, const Clock& clock) {
  return {MeasureRead(pool, clock), MeasureFma(pool, clock)};
}

}  // namespace lorikeet
#endif  // HWY_ONCE
