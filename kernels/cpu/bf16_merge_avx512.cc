// W' = gain * (W + scale B A) over bf16 panels, all three in bf16, with
// vdpbf16ps: two ranks an instruction, twice what multiply-adds do.
//
// A register tile holds 12 columns of a panel of 32 outputs. The instruction
// adds the product of the upper halves first, so the lower rank of a pair goes
// up: the chain over ranks is ascending, and the bits are those of merge.cc
// (but that it takes numbers below the normal ones for 0). W goes from memory
// to registers and W' past the caches: nothing of them is kept on the way.

#include "hwy/base.h"
#include "kernels/cpu/avx512_gemm.h"
#include "kernels/cpu/packed.h"

#if HWY_ARCH_X86_64

#if defined(__GNUC__) && !defined(__clang__)
// GCC's own headers use an undefined vector on purpose (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES(
    "avx2,fma,f16c,avx512f,avx512vl,avx512dq,avx512bw,"
    "avx512bf16")

namespace lorikeet::cpu {
namespace {

// Pairs of columns of a tile: 24 sums of 32 registers.
constexpr int kMaxPairs = 6;
constexpr int64_t kLanes = 16;
constexpr int64_t kPairBytes = 2 * kGroup * 2;  // of W, two columns
constexpr int64_t kAhead = 32 * kPairBytes;     // of W

HWY_INLINE __m512bh BroadcastPair(const uint32_t* pair) {
  return (__m512bh)_mm512_set1_epi32(static_cast<int32_t>(*pair));
}

// Vector `v` of ranks 2 * pair and 2 * pair + 1 of B, the first of them up.
HWY_INLINE __m512bh LoadRanks(const Bf16MergeArgs& args, int64_t pair, int v) {
  if (2 * pair + 1 < args.rank) {
    const __m512i both =
        _mm512_load_si512(args.b + pair * kPairBytes + v * kLanes * 4);
    return (__m512bh)_mm512_rol_epi32(both, 16);
  }
  const __m512i last =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(
          args.b + pair * kPairBytes + v * kLanes * 2)));
  return (__m512bh)_mm512_slli_epi32(last, 16);
}

// bf16 bits in the upper half, to nearest even; a NaN stays one.
HWY_INLINE __m512i Round(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd =
      _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
  const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, is_nan, bits,
                              _mm512_set1_epi32(0x400000));
}

// W and the sums of two columns become those of W'.
HWY_INLINE __m512i Finish(__m512i w, __m512 even, __m512 odd, __m512 scale,
                          bool has_gain, __m512 gain) {
  const __m512i high_half = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
  __m512 low = _mm512_fmadd_ps(scale, even,
                               _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)));
  __m512 high = _mm512_fmadd_ps(
      scale, odd, _mm512_castsi512_ps(_mm512_and_si512(w, high_half)));
  if (has_gain) {
    low = _mm512_mul_ps(gain, low);
    high = _mm512_mul_ps(gain, high);
  }
  return _mm512_or_si512(_mm512_srli_epi32(Round(low), 16),
                         _mm512_and_si512(Round(high), high_half));
}

template <int kPairs>
void Tile(const Bf16MergeArgs& args, int64_t first) {
  const int64_t ranks = (args.rank + 1) / 2;
  const uint32_t* a = args.a + 2 * first * ranks;
  __m512 sum[2 * kPairs][2];
  HWY_UNROLL(12)
  for (int c = 0; c < 2 * kPairs; ++c) {
    sum[c][0] = _mm512_setzero_ps();
    sum[c][1] = _mm512_setzero_ps();
  }
  for (int64_t r = 0; r < ranks; ++r) {
    const __m512bh b0 = LoadRanks(args, r, 0), b1 = LoadRanks(args, r, 1);
    HWY_UNROLL(12)
    for (int c = 0; c < 2 * kPairs; ++c) {
      const __m512bh in = BroadcastPair(a + c * ranks + r);
      sum[c][0] = _mm512_dpbf16_ps(sum[c][0], b0, in);
      sum[c][1] = _mm512_dpbf16_ps(sum[c][1], b1, in);
    }
  }
  const __m512 scale = _mm512_set1_ps(args.scale);
  HWY_UNROLL(2)
  for (int v = 0; v < 2; ++v) {
    const bool has_gain = args.gain != nullptr;
    const __m512 gain = has_gain ? _mm512_loadu_ps(args.gain + v * kLanes)
                                 : _mm512_setzero_ps();
    HWY_UNROLL(6)
    for (int p = 0; p < kPairs; ++p) {
      const int64_t at = (first + p) * kPairBytes + v * kLanes * 4;
      _mm_prefetch(args.w + at + kAhead, _MM_HINT_T0);
      const __m512i w = _mm512_load_si512(args.w + at);
      _mm512_stream_si512(
          reinterpret_cast<__m512i*>(args.to + at),
          Finish(w, sum[2 * p][v], sum[2 * p + 1][v], scale, has_gain, gain));
    }
  }
}

}  // namespace

void Bf16MergeAvx512(const Bf16MergeArgs& args) {
  const int64_t pairs = args.cols / 2;
  int64_t first = 0;
  for (; first + kMaxPairs <= pairs; first += kMaxPairs) {
    Tile<kMaxPairs>(args, first);
  }
  for (; first < pairs; ++first) Tile<1>(args, first);
  _mm_sfence();
}

}  // namespace lorikeet::cpu
HWY_POP_ATTRIBUTES

#else  // not x86

namespace lorikeet::cpu {
void Bf16MergeAvx512(const Bf16MergeArgs&) {}
}  // namespace lorikeet::cpu

#endif
