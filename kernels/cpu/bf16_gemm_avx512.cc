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

#include <algorithm>
#include <cstring>

HWY_PUSH_ATTRIBUTES(
    "avx2,fma,f16c,avx512f,avx512vl,avx512dq,avx512bw,"
    "avx512bf16")
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
    const int64_t ahead = PrefetchOffset<kPanels>(pair * 128, panel_bytes);
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      const char* part = w + v / 2 * panel_bytes + v % 2 * 64;
      const char* from = part + pair * 128;
      PrefetchWeights<kRows>(part + ahead);
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

template <int kRows>
void RowTile(const Bf16GemmArgs& args, int64_t row) {
  constexpr int kPanels = kRows == 1 ? 4 : kRows <= 3 ? 2 : 1;
  int64_t panel = 0;
  for (; panel + kPanels <= args.panel_count; panel += kPanels) {
    Tile<kRows, kPanels>(args, row, panel);
  }
  // The rest at once too: its time is that of a chain, not of its bytes.
  const int64_t rest = args.panel_count - panel;
  if (kPanels > 3 && rest == 3) {
    Tile<kRows, std::min(kPanels, 3)>(args, row, panel);
  } else if (kPanels > 2 && rest == 2) {
    Tile<kRows, std::min(kPanels, 2)>(args, row, panel);
  } else if (rest > 0) {
    Tile<kRows, 1>(args, row, panel);
  }
}

template <int kRows>
HWY_INLINE void DispatchRows(const Bf16GemmArgs& args, int64_t row,
                             int64_t count) {
  if constexpr (kRows > 0) {
    if (count == kRows) return RowTile<kRows>(args, row);
    DispatchRows<kRows - 1>(args, row, count);
  }
}

}  // namespace

void Bf16GemmAvx512(const Bf16GemmArgs& args) {
  int64_t row = 0;
  for (int64_t tiles = (args.rows + kMaxRows - 1) / kMaxRows; tiles > 0;
       --tiles) {
    const int64_t count = (args.rows - row + tiles - 1) / tiles;
    DispatchRows<kMaxRows>(args, row, count);
    row += count;
  }
}

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
