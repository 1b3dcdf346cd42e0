// y = x W^T over bf16 panels with vdpbf16ps: a lane adds the products of two
// neighbouring columns to an f32 sum, the odd column first, each with one
// rounding. x was rounded to bf16 before. An odd last column is paired with 0.

#include "hwy/base.h"
#include "kernels/cpu/avx512_gemm.h"
#include "kernels/cpu/packed.h"

#if HWY_ARCH_X86_64

#if defined(__GNUC__) && !defined(__clang__)
// GCC's own headers use an undefined vector on purpose (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstring>

HWY_PUSH_ATTRIBUTES(
    "avx2,fma,f16c,avx512f,avx512vl,avx512dq,avx512bw,"
    "avx512bf16")
// Within the region, see there.
#include "kernels/cpu/tile_walk-inl.h"

namespace lorikeet::cpu {
namespace {

// Of 32 registers: 2 sums a row, 2 of weights, and x.
constexpr int kMaxRows = 12;
constexpr int64_t kLanes = 16;

HWY_INLINE __m512bh BroadcastPair(const uint16_t* x) {
  int32_t pair;
  std::memcpy(&pair, x, sizeof(pair));
  return (__m512bh)_mm512_set1_epi32(pair);
}

template <int kRows, int kVectors>
HWY_INLINE void AddPair(const uint16_t* x, int64_t x_stride,
                        const __m512i (&weight)[kVectors],
                        __m512 (&sum)[kRows][kVectors]) {
  HWY_UNROLL(12)
  for (int r = 0; r < kRows; ++r) {
    const __m512bh in = BroadcastPair(x + r * x_stride);
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)weight[v], in);
    }
  }
}

template <int kRows, int kPanels>
HWY_INLINE void Tile(const Bf16GemmArgs& args, int64_t row, int64_t panel) {
  constexpr int kVectors = 2 * kPanels;
  const int64_t panel_bytes = PanelBytes(DType::kBF16, args.k);
  const char* w = args.panels + panel * panel_bytes;
  const uint16_t* x = args.x + row * args.x_stride;

  __m512 sum[kRows][kVectors];
  HWY_UNROLL(12)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm512_setzero_ps();
  }
  __m512i weight[kVectors];
  const int64_t pairs = args.k / 2;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int64_t ahead =
        PrefetchOffset<kRows, kPanels>(pair * 128, panel_bytes);
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      const char* part = w + v / 2 * panel_bytes + v % 2 * 64;
      const char* from = part + pair * 128;
      PrefetchWeights(part + ahead);
      weight[v] = _mm512_load_si512(from);
    }
    AddPair(x + pair * 2, args.x_stride, weight, sum);
  }
  if (args.k % 2 == 1) {
    for (int v = 0; v < kVectors; ++v) {
      const char* from =
          w + v / 2 * panel_bytes + pairs * 128 + v % 2 * kLanes * 2;
      weight[v] = _mm512_cvtepu16_epi32(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    AddPair(x + pairs * 2, args.x_stride, weight, sum);
  }
  HWY_UNROLL(12)
  for (int r = 0; r < kRows; ++r) {
    float* y = args.y + (row + r) * args.y_stride + panel * kGroup;
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      _mm512_storeu_ps(y + v * kLanes, sum[r][v]);
    }
  }
}

struct Kernel {
  static constexpr int kMaxRows = cpu::kMaxRows;
  template <int kRows, int kPanels>
  static HWY_INLINE void Tile(const Bf16GemmArgs& args, int64_t row,
                              int64_t panel) {
    cpu::Tile<kRows, kPanels>(args, row, panel);
  }
};

}  // namespace

void Bf16GemmAvx512(const Bf16GemmArgs& args) { WalkRows<Kernel>(args); }

int64_t Bf16DotChains(int64_t rounds, float* sink) {
  constexpr int kChains = 12;
  // Each begins elsewhere: the compiler merges chains that are equal.
  __m512 sum[kChains];
  for (int c = 0; c < kChains; ++c) {
    sum[c] = _mm512_set1_ps(static_cast<float>(c));
  }
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3F803F80);
  for (int64_t i = 0; i < rounds; ++i) {
    HWY_UNROLL(12)
    for (int c = 0; c < kChains; ++c) sum[c] = _mm512_dpbf16_ps(sum[c], a, a);
  }
  for (int c = 1; c < kChains; ++c) sum[0] = _mm512_add_ps(sum[0], sum[c]);
  *sink = _mm512_cvtss_f32(sum[0]);
  return rounds * kChains * 2 * 2 * kLanes;
}

}  // namespace lorikeet::cpu
HWY_POP_ATTRIBUTES

namespace lorikeet::cpu {

bool HasAvx512Bf16() {
  return __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512bf16");
}

}  // namespace lorikeet::cpu

#else  // not x86

namespace lorikeet::cpu {

bool HasAvx512Bf16() { return false; }
void Bf16GemmAvx512(const Bf16GemmArgs&) {}
int64_t Bf16DotChains(int64_t, float*) { return 0; }

}  // namespace lorikeet::cpu

#endif
