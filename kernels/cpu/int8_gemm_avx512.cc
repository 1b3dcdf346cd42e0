// y = x W^T over int8 panels with vpdpbusd: a lane adds four products of a
// biased weight (0..255) and a signed activation. The accumulator of a block
// starts at -128 * sum(x), which takes the bias back out. Then
//   sum = fma(float(acc), scale_w * scale_x, sum)
// once a block. Weights stream at 34 bits a multiply-add pair of rows: one row
// walks four panels at once so that enough loads are in flight, more rows walk
// one panel, each of whose vectors serves them all.

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
    "avx512vnni")
// Within the region, see there.
#include "kernels/cpu/tile_walk-inl.h"

namespace lorikeet::cpu {
namespace {

// Of 32 registers: two for each row and vector, the weights, and x.
constexpr int kMaxRows = 6;
constexpr int64_t kLanes = 16;

HWY_INLINE __m512i BroadcastQuad(const int8_t* q) {
  int32_t quad;
  std::memcpy(&quad, q, sizeof(quad));
  return _mm512_set1_epi32(quad);
}

template <int kRows, int kPanels>
HWY_INLINE void Tile(const Int8GemmArgs& args, int64_t row, int64_t panel) {
  constexpr int kVectors = 2 * kPanels;
  const int64_t blocks = GroupsOf(args.k);
  const int64_t panel_bytes = blocks * kInt8PanelBlockBytes;
  const char* const panel_begin = args.panels + panel * panel_bytes;
  const char* w = panel_begin;
  const Int8Rows& x = args.x;

  __m512 sum[kRows][kVectors];
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm512_setzero_ps();
  }
  for (int64_t b = 0; b < blocks; ++b, w += kInt8PanelBlockBytes) {
    const char* const ahead =
        panel_begin +
        PrefetchOffset<kRows, kPanels>(b * kInt8PanelBlockBytes, panel_bytes);
    __m512i acc[kRows][kVectors];
    HWY_UNROLL(6)
    for (int r = 0; r < kRows; ++r) {
      const __m512i offset =
          _mm512_set1_epi32(x.offsets[(row + r) * x.blocks + b]);
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) acc[r][v] = offset;
    }
    const int8_t* q = x.q + (row * x.blocks + b) * kInt8Block;
    HWY_UNROLL(8)
    for (int64_t quad = 0; quad < 8; ++quad) {
      __m512i weight[kVectors];
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) {
        const int64_t from = v / 2 * panel_bytes + kGroup * 2 +
                             (quad * kGroup + v % 2 * kLanes) * 4;
        PrefetchWeights(ahead + from);
        weight[v] = _mm512_loadu_si512(w + from);
      }
      HWY_UNROLL(6)
      for (int r = 0; r < kRows; ++r) {
        const __m512i in =
            BroadcastQuad(q + r * x.blocks * kInt8Block + quad * 4);
        HWY_UNROLL(8)
        for (int v = 0; v < kVectors; ++v) {
          acc[r][v] = _mm512_dpbusd_epi32(acc[r][v], weight[v], in);
        }
      }
    }
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      const int64_t from = v / 2 * panel_bytes + v % 2 * kLanes * 2;
      if (v % 2 == 0) PrefetchWeights(ahead + from);
      const __m512 scale = _mm512_cvtph_ps(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + from)));
      HWY_UNROLL(6)
      for (int r = 0; r < kRows; ++r) {
        const __m512 both = _mm512_mul_ps(
            scale, _mm512_set1_ps(x.scales[(row + r) * x.blocks + b]));
        sum[r][v] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][v]), both, sum[r][v]);
      }
    }
  }
  HWY_UNROLL(6)
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
  static HWY_INLINE void Tile(const Int8GemmArgs& args, int64_t row,
                              int64_t panel) {
    cpu::Tile<kRows, kPanels>(args, row, panel);
  }
};

}  // namespace

void Int8GemmAvx512(const Int8GemmArgs& args) { WalkRows<Kernel>(args); }

}  // namespace lorikeet::cpu
HWY_POP_ATTRIBUTES

namespace lorikeet::cpu {

bool HasAvx512Vnni() {
  return __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vnni");
}

}  // namespace lorikeet::cpu

#else  // not x86

namespace lorikeet::cpu {

bool HasAvx512Vnni() { return false; }
void Int8GemmAvx512(const Int8GemmArgs&) {}

}  // namespace lorikeet::cpu

#endif
