#include "kernels/cpu/machine_peaks.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/cpu/avx512_gemm.h"

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

constexpr int kPasses = 7;
// Several times the largest last-level cache share of a small machine.
constexpr int64_t kReadBytes = int64_t{512} << 20;
constexpr int64_t kPieceFloats = int64_t{1} << 18;
constexpr int64_t kRounds = 4'000'000;

int64_t F32Chains(int64_t rounds, float* sink) {
  return 2 * HWY_DYNAMIC_DISPATCH(MultiplyAdd)(rounds, sink);
}

}  // namespace

MachineProbe::MachineProbe(ThreadPool& pool, const Clock& clock)
    : pool_(pool),
      clock_(clock),
      buffer_(kReadBytes),
      sinks_(static_cast<size_t>(pool.num_threads())) {
  // Pages that were never written are all the same one.
  std::memset(buffer_.data(), 1, static_cast<size_t>(kReadBytes));
}

double MachineProbe::ReadBytesPerSecond() {
  const int64_t pieces = kReadBytes / 4 / kPieceFloats;
  const absl::Duration start = clock_.Now();
  pool_.ParallelFor(pieces, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t p = begin; p < end; ++p) {
      const float* piece = buffer_.as<float>() + p * kPieceFloats;
      sinks_[static_cast<size_t>(worker)] =
          HWY_DYNAMIC_DISPATCH(ReadAll)(piece, kPieceFloats);
    }
  });
  const double seconds = absl::ToDoubleSeconds(clock_.Now() - start);
  return static_cast<double>(kReadBytes) / seconds;
}

double MachineProbe::FlopsPerSecond(int64_t (*chains)(int64_t, float*)) {
  std::atomic<int64_t> done{0};
  const absl::Duration start = clock_.Now();
  pool_.Run([&](int worker) {
    done += chains(kRounds, &sinks_[static_cast<size_t>(worker)]);
  });
  const double seconds = absl::ToDoubleSeconds(clock_.Now() - start);
  return static_cast<double>(done) / seconds;
}

double MachineProbe::F32FlopsPerSecond() { return FlopsPerSecond(F32Chains); }

double MachineProbe::Bf16FlopsPerSecond() {
  if (!cpu::HasAvx512Bf16()) return 0;
  return FlopsPerSecond(cpu::Bf16DotChains);
}

MachinePeaks MeasureMachinePeaks(ThreadPool& pool, const Clock& clock) {
  MachineProbe probe(pool, clock);
  MachinePeaks peaks;
  for (int pass = 0; pass < kPasses; ++pass) {
    peaks.read_bytes_per_second =
        std::max(peaks.read_bytes_per_second, probe.ReadBytesPerSecond());
    peaks.f32_flops_per_second =
        std::max(peaks.f32_flops_per_second, probe.F32FlopsPerSecond());
  }
  return peaks;
}

}  // namespace lorikeet
#endif  // HWY_ONCE
