// Quantizing a row of x, and y = x W^T over int8 panels where AVX512_VNNI is
// missing. A block's inner sum is an exact integer, by
//   AVX2    maddubs(|x|, sign(w, x)): |x|, |w| <= 127, so that two products fit
//           into 16 bits
//   others  f32 multiply-adds of whole numbers below 2^24, which are exact too
// so the bits of a result are those of the chain over blocks alone.

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/int8_gemm.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {
namespace {

using Int32Tag = hn::RebindToSigned<FloatTag>;

// ---- x ----------------------------------------------------------------------

// The rule of QuantizeActivationBlock, block by block.
void QuantizeRow(const float* x, int64_t k, int8_t* q, float* scales,
                 int32_t* offsets) {
  const FloatTag d;
  const Int32Tag di;
  const hn::Rebind<int8_t, FloatTag> d8;
  const int64_t whole = k / kInt8Block;
  for (int64_t b = 0; b < whole; ++b) {
    const float* from = x + b * kInt8Block;
    int8_t* to = q + b * kInt8Block;
    FloatVec largest = hn::Zero(d);
    FloatVec sum = hn::Zero(d);
    for (int64_t i = 0; i < kInt8Block; i += kLanes) {
      const FloatVec magnitude = hn::Abs(hn::LoadU(d, from + i));
      largest = hn::Max(largest, magnitude);
      // 0 * NaN and 0 * infinity are NaN.
      sum = hn::MulAdd(magnitude, hn::Zero(d), sum);
    }
    const float most = hn::GetLane(hn::MaxOfLanes(d, largest));
    const bool is_number = hn::GetLane(hn::SumOfLanes(d, sum)) == 0;
    if (!is_number || most < std::numeric_limits<float>::min()) {
      scales[b] = QuantizeActivationBlock(from, kInt8Block, to);
      offsets[b] = 0;
      continue;
    }
    const FloatVec inverse = hn::Set(d, 127 / most);
    auto total = hn::Zero(di);
    for (int64_t i = 0; i < kInt8Block; i += kLanes) {
      const auto number =
          hn::NearestInt(hn::Mul(hn::LoadU(d, from + i), inverse));
      total = hn::Add(total, number);
      hn::StoreU(hn::DemoteTo(d8, number), d8, to + i);
    }
    scales[b] = most / 127;
    offsets[b] = -128 * hn::GetLane(hn::SumOfLanes(di, total));
  }
  if (whole * kInt8Block == k) return;
  int8_t* to = q + whole * kInt8Block;
  scales[whole] = QuantizeActivationBlock(x + whole * kInt8Block,
                                          k - whole * kInt8Block, to);
  int32_t total = 0;
  for (int64_t i = 0; i < kInt8Block; ++i) total += to[i];
  offsets[whole] = -128 * total;
}

// ---- tiles ------------------------------------------------------------------

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3

// Eight outputs of kRows rows: vector `v` of the panel at `w`.
constexpr int kMaxRows = 2;
constexpr int64_t kWidth = 8;

template <int kRows, int kVectors>
HWY_INLINE void Tile(const Int8GemmArgs& args, int64_t row, int64_t panel,
                     int64_t first) {
  const int64_t blocks = GroupsOf(args.k);
  const char* w = args.panels + panel * blocks * kInt8PanelBlockBytes;
  const Int8Rows& x = args.x;
  const __m256i bias = _mm256_set1_epi8(static_cast<char>(-128));
  const __m256i ones = _mm256_set1_epi16(1);
  __m256 sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm256_setzero_ps();
  }
  for (int64_t b = 0; b < blocks; ++b, w += kInt8PanelBlockBytes) {
    __m256i acc[kRows][kVectors];
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) acc[r][v] = _mm256_setzero_si256();
    }
    const int8_t* q = x.q + (row * x.blocks + b) * kInt8Block;
    for (int64_t quad = 0; quad < 8; ++quad) {
      const char* from = w + kGroup * 2 + (quad * kGroup + first * kWidth) * 4;
      PrefetchWeights(from + 2048);
      __m256i in[kRows];
      HWY_UNROLL(2)
      for (int r = 0; r < kRows; ++r) {
        int32_t four;
        std::memcpy(&four, q + r * x.blocks * kInt8Block + quad * 4, 4);
        in[r] = _mm256_set1_epi32(four);
      }
      HWY_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) {
        const __m256i weight = _mm256_xor_si256(
            bias, _mm256_loadu_si256(
                      reinterpret_cast<const __m256i*>(from + v * kWidth * 4)));
        HWY_UNROLL(2)
        for (int r = 0; r < kRows; ++r) {
          const __m256i products = _mm256_maddubs_epi16(
              _mm256_abs_epi8(in[r]), _mm256_sign_epi8(weight, in[r]));
          acc[r][v] =
              _mm256_add_epi32(acc[r][v], _mm256_madd_epi16(products, ones));
        }
      }
    }
    HWY_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) {
      const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128(
          reinterpret_cast<const __m128i*>(w + (first + v) * kWidth * 2)));
      HWY_UNROLL(2)
      for (int r = 0; r < kRows; ++r) {
        const __m256 both = _mm256_mul_ps(
            scale, _mm256_set1_ps(x.scales[(row + r) * x.blocks + b]));
        sum[r][v] =
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[r][v]), both, sum[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    float* y = args.y + (row + r) * args.y_stride + panel * kGroup;
    for (int v = 0; v < kVectors; ++v) {
      _mm256_storeu_ps(y + (first + v) * kWidth, sum[r][v]);
    }
  }
}

template <int kRows>
HWY_INLINE void PanelTiles(const Int8GemmArgs& args, int64_t row,
                           int64_t panel) {
  constexpr int kVectors = kRows == 1 ? 4 : 2;
  for (int64_t first = 0; first < kGroup / kWidth; first += kVectors) {
    Tile<kRows, kVectors>(args, row, panel, first);
  }
}

#else

constexpr int kMaxRows = 2;

template <int kRows>
HWY_INLINE void PanelTiles(const Int8GemmArgs& args, int64_t row,
                           int64_t panel) {
  const FloatTag d;
  const Int32Tag di;
  const hn::Rebind<hwy::float16_t, FloatTag> dh;
  const int64_t blocks = GroupsOf(args.k);
  const char* panel_begin = args.panels + panel * blocks * kInt8PanelBlockBytes;
  const Int8Rows& x = args.x;
  const auto bias = hn::Set(di, static_cast<int32_t>(0x80808080u));
  for (int64_t first = 0; first < kGroup; first += kLanes) {
    FloatVec sum[kRows];
    for (int r = 0; r < kRows; ++r) sum[r] = hn::Zero(d);
    const char* w = panel_begin;
    for (int64_t b = 0; b < blocks; ++b, w += kInt8PanelBlockBytes) {
      FloatVec acc[kRows];
      for (int r = 0; r < kRows; ++r) acc[r] = hn::Zero(d);
      const int8_t* q = x.q + (row * x.blocks + b) * kInt8Block;
      for (int64_t quad = 0; quad < 8; ++quad) {
        const auto four = hn::Xor(
            bias,
            hn::LoadU(di, reinterpret_cast<const int32_t*>(
                              w + kGroup * 2 + (quad * kGroup + first) * 4)));
        const FloatVec weight[4] = {
            hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<24>(four))),
            hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<16>(four))),
            hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<8>(four))),
            hn::ConvertTo(d, hn::ShiftRight<24>(four))};
        for (int r = 0; r < kRows; ++r) {
          const int8_t* in = q + r * x.blocks * kInt8Block + quad * 4;
          for (int j = 0; j < 4; ++j) {
            acc[r] = hn::MulAdd(hn::Set(d, static_cast<float>(in[j])),
                                weight[j], acc[r]);
          }
        }
      }
      const FloatVec scale = hn::PromoteTo(
          d, hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(w) + first));
      for (int r = 0; r < kRows; ++r) {
        const FloatVec both =
            hn::Mul(scale, hn::Set(d, x.scales[(row + r) * x.blocks + b]));
        sum[r] = hn::MulAdd(acc[r], both, sum[r]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      hn::StoreU(sum[r], d,
                 args.y + (row + r) * args.y_stride + panel * kGroup + first);
    }
  }
}

#endif

void Int8Gemm(const Int8GemmArgs& args) {
  int64_t row = 0;
  for (; row + kMaxRows <= args.rows; row += kMaxRows) {
    for (int64_t panel = 0; panel < args.panel_count; ++panel) {
      PanelTiles<kMaxRows>(args, row, panel);
    }
  }
  for (; row < args.rows; ++row) {
    for (int64_t panel = 0; panel < args.panel_count; ++panel) {
      PanelTiles<1>(args, row, panel);
    }
  }
}

}  // namespace

void FillInt8GemmOfTarget(KernelTable* table) {
  table->quantize_row = QuantizeRow;
  table->int8_gemm = Int8Gemm;
}

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {

HWY_EXPORT(FillInt8GemmOfTarget);

void FillInt8Gemm(KernelTable& table) {
  HWY_DYNAMIC_DISPATCH(FillInt8GemmOfTarget)(&table);
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
