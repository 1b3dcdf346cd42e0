// Merged weights W' = gain * (W + sum_i scale_i B_i A_i), panel by panel.
//
// A product of A's columns with a panel of B is the same as LoRA's expand, so
// the register tiles of gemm.cc do the arithmetic:
//   1  A is transposed to [in, rank] f32, once a call
//   2  a thread takes a panel of 32 outputs, and of it pieces of 96 columns:
//      W widened into a tile [96, 32] in the first-level cache; tile += scale *
//      A^T B^T of each term; tile rounded and written past the caches
// Bytes: W is read once, W' written once. With a rank of 16 an element costs 16
// multiply-adds, which keeps two threads about as busy as the memory. Where all
// of it is bf16 and the machine has dot products of them, both steps are one
// (bf16_merge_avx512.cc).

#include <algorithm>
#include <cstring>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/merge.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/operators.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {
namespace {

using HalfTag = hn::Rebind<uint16_t, FloatTag>;
using Float16Tag = hn::Rebind<hwy::float16_t, FloatTag>;
using IntTag = hn::RebindToSigned<FloatTag>;
// Vectors of a row of a tile.
constexpr int kWidth = static_cast<int>(kGroup) / kLanes;

// ---- A ----------------------------------------------------------------------

template <DType kType>
void TransposeGroup(const char* from, int64_t ranks, float* out,
                    int64_t stride) {
  const FloatTag d;
  HWY_ALIGN float row[kGroup];
  for (int64_t r = 0; r < ranks; ++r) {
    for (int u = 0; u < kUnits; ++u) {
      FloatVec low;
      FloatVec high;
      LoadPair<kType>(from + r * LoraVectorBytes(kType), u, low, high);
      hn::Store(low, d, row + u * kLanes);
      hn::Store(high, d, row + u * kLanes + 16);
    }
    for (int64_t i = 0; i < kGroup; ++i) out[i * stride + r] = row[i];
  }
}

void TransposeRanks(DType dtype, const char* block, int64_t ranks,
                    int64_t group, float* out, int64_t stride) {
  const char* from = block + group * ranks * LoraVectorBytes(dtype);
  switch (dtype) {
    case DType::kF32:
      return TransposeGroup<DType::kF32>(from, ranks, out, stride);
    case DType::kBF16:
      return TransposeGroup<DType::kBF16>(from, ranks, out, stride);
    case DType::kF16:
      return TransposeGroup<DType::kF16>(from, ranks, out, stride);
    case DType::kI8:
      return TransposeGroup<DType::kI8>(from, ranks, out, stride);
  }
}

// ---- panels to numbers ------------------------------------------------------

template <DType kType>
void WidenColumns(const char* panel, int64_t cols, int64_t begin, int64_t count,
                  float* tile) {
  constexpr int kColumns = PanelColumns<kType>::kCount;
  const FloatTag d;
  const char* from = panel + begin * kGroup * SizeBytes(kType);
  const int64_t whole = count / kColumns * kColumns;
  for (int64_t k = 0; k < whole; k += kColumns) {
    for (int column = 0; column < kColumns; ++column) {
      for (int v = 0; v < kWidth; ++v) {
        hn::Store(PanelColumns<kType>::Load(
                      from + k * kGroup * SizeBytes(kType), v, column),
                  d, tile + (k + column) * kGroup + v * kLanes);
      }
    }
  }
  if (whole == count) return;
  CHECK_EQ(begin + count, cols);
  for (int v = 0; v < kWidth; ++v) {
    hn::Store(PanelColumns<kType>::LoadLast(
                  from + whole * kGroup * SizeBytes(kType), v),
              d, tile + whole * kGroup + v * kLanes);
  }
}

// One block of 32 columns; `count` of them are asked for.
void WidenInt8Block(const char* block, int64_t count, float* tile) {
  const FloatTag d;
  const WordTag dw;
  const IntTag di;
  const auto byte = hn::Set(dw, 0xFFu);
  const auto bias = hn::Set(di, 128);
  for (int v = 0; v < kWidth; ++v) {
    const FloatVec scale = hn::PromoteTo(
        d, hn::Load(Float16Tag(), reinterpret_cast<const hwy::float16_t*>(
                                      block + 2 * v * kLanes)));
    const auto* words =
        reinterpret_cast<const uint32_t*>(block + 2 * kGroup) + v * kLanes;
    for (int64_t k = 0; k < count; k += 4) {
      auto four = hn::Load(dw, words + k / 4 * kGroup);
      for (int64_t j = k; j < std::min(k + 4, count); ++j) {
        const auto q = hn::Sub(hn::BitCast(di, hn::And(four, byte)), bias);
        hn::Store(hn::Mul(scale, hn::ConvertTo(d, q)), d,
                  tile + j * kGroup + v * kLanes);
        four = hn::ShiftRight<8>(four);
      }
    }
  }
}

void WidenPanel(DType dtype, const char* panel, int64_t cols, int64_t begin,
                int64_t count, float* tile) {
  switch (dtype) {
    case DType::kF32:
      return WidenColumns<DType::kF32>(panel, cols, begin, count, tile);
    case DType::kBF16:
      return WidenColumns<DType::kBF16>(panel, cols, begin, count, tile);
    case DType::kF16:
      return WidenColumns<DType::kF16>(panel, cols, begin, count, tile);
    case DType::kI8:
      for (int64_t k = 0; k < count; k += kGroup) {
        WidenInt8Block(panel + (begin + k) / kGroup * kInt8PanelBlockBytes,
                       std::min(kGroup, count - k), tile + k * kGroup);
      }
  }
}

// ---- numbers to panels ------------------------------------------------------

void NarrowF32(const float* tile, int64_t begin, int64_t count, char* panel) {
  const FloatTag d;
  float* to = reinterpret_cast<float*>(panel) + begin * kGroup;
  for (int64_t i = 0; i < count * kGroup; i += kLanes) {
    hn::Stream(hn::Load(d, tile + i), d, to + i);
  }
}

void NarrowF16(const float* tile, int64_t begin, int64_t count, char* panel) {
#if HWY_TARGET == HWY_SSE4  // Highway's conversion cuts off there
  uint16_t* bits = reinterpret_cast<uint16_t*>(panel) + begin * kGroup;
  for (int64_t i = 0; i < count * kGroup; ++i) bits[i] = F16FromFloat(tile[i]);
#else
  const FloatTag d;
  const Float16Tag dh;
  auto* to = reinterpret_cast<hwy::float16_t*>(panel) + begin * kGroup;
  for (int64_t i = 0; i < count * kGroup; i += kLanes) {
    hn::Store(hn::DemoteTo(dh, hn::Load(d, tile + i)), dh, to + i);
  }
#endif
}

// bf16 bits in the upper half, to nearest even; a NaN stays one.
HWY_INLINE hn::Vec<WordTag> RoundBf16(FloatVec x) {
  const WordTag dw;
  const auto bits = hn::BitCast(dw, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(dw, 1u));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(dw, 0x7FFFu)), odd);
  return hn::IfThenElse(hn::RebindMask(dw, hn::IsNaN(x)),
                        hn::Or(bits, hn::Set(dw, 0x400000u)), rounded);
}

void NarrowBf16(const float* tile, int64_t begin, int64_t count, char* panel) {
  const FloatTag d;
  const WordTag dw;
  const HalfTag dh;
  uint16_t* to = reinterpret_cast<uint16_t*>(panel) + begin * kGroup;
  const int64_t whole = count / 2 * 2;
  for (int64_t k = 0; k < whole; k += 2) {
    for (int v = 0; v < kWidth; ++v) {
      const float* from = tile + k * kGroup + v * kLanes;
      const auto low = hn::ShiftRight<16>(RoundBf16(hn::Load(d, from)));
      const auto high = hn::And(RoundBf16(hn::Load(d, from + kGroup)),
                                hn::Set(dw, 0xFFFF0000u));
      hn::Stream(hn::Or(low, high), dw,
                 reinterpret_cast<uint32_t*>(to + k * kGroup) + v * kLanes);
    }
  }
  if (whole == count) return;
  for (int v = 0; v < kWidth; ++v) {
    const auto bits = hn::ShiftRight<16>(
        RoundBf16(hn::Load(d, tile + whole * kGroup + v * kLanes)));
    hn::Store(hn::TruncateTo(dh, bits), dh, to + whole * kGroup + v * kLanes);
  }
}

// As QuantizeWeightBlock, a lane an output.
void NarrowInt8Block(float* tile, int64_t count, char* block) {
  const FloatTag d;
  const WordTag dw;
  const IntTag di;
  const Float16Tag dh;
  const hn::RebindToUnsigned<Float16Tag> dbits;
  std::memset(tile + count * kGroup, 0,
              static_cast<size_t>((kGroup - count) * kGroup) * sizeof(float));
  for (int v = 0; v < kWidth; ++v) {
    const float* from = tile + v * kLanes;
    FloatVec largest = hn::Zero(d);
    for (int64_t k = 0; k < kGroup; ++k) {
      largest = hn::Max(largest, hn::Abs(hn::Load(d, from + k * kGroup)));
    }
    // The smallest f16 that is not below.
    const FloatVec wanted = hn::Div(largest, hn::Set(d, 127.0f));
    HWY_ALIGN float below[kLanes];
    HWY_ALIGN uint16_t bits[kLanes];
    const auto nearest = hn::DemoteTo(dh, wanted);
    hn::Store(hn::BitCast(dbits, nearest), dbits, bits);
    hn::Store(hn::Sub(wanted, hn::PromoteTo(d, nearest)), d, below);
    for (int i = 0; i < kLanes; ++i) {
      bits[i] = static_cast<uint16_t>(bits[i] + (below[i] > 0 ? 1 : 0));
    }
    std::memcpy(block + 2 * v * kLanes, bits, sizeof(bits));
    const FloatVec scale =
        hn::PromoteTo(d, hn::BitCast(dh, hn::Load(dbits, bits)));
    const auto is_zero = hn::Eq(scale, hn::Zero(d));
    const FloatVec divisor = hn::IfThenElse(is_zero, hn::Set(d, 1.0f), scale);
    uint32_t* words =
        reinterpret_cast<uint32_t*>(block + 2 * kGroup) + v * kLanes;
    for (int64_t k = 0; k < kGroup; k += 4) {
      auto four = hn::Zero(dw);
      for (int64_t j = 3; j >= 0; --j) {
        const FloatVec x = hn::Load(d, from + (k + j) * kGroup);
        const auto rounded =
            hn::NearestInt(hn::IfThenZeroElse(is_zero, hn::Div(x, divisor)));
        const auto q =
            hn::Min(hn::Max(rounded, hn::Set(di, -127)), hn::Set(di, 127));
        four = hn::Or(hn::ShiftLeft<8>(four),
                      hn::BitCast(dw, hn::Add(q, hn::Set(di, 128))));
      }
      hn::Stream(four, dw, words + k / 4 * kGroup);
    }
  }
}

void NarrowPanel(DType dtype, float* tile, int64_t begin, int64_t count,
                 char* panel) {
  switch (dtype) {
    case DType::kF32:
      NarrowF32(tile, begin, count, panel);
      break;
    case DType::kBF16:
      NarrowBf16(tile, begin, count, panel);
      break;
    case DType::kF16:
      NarrowF16(tile, begin, count, panel);
      break;
    case DType::kI8:
      for (int64_t k = 0; k < count; k += kGroup) {
        NarrowInt8Block(tile + k * kGroup, std::min(kGroup, count - k),
                        panel + (begin + k) / kGroup * kInt8PanelBlockBytes);
      }
      break;
  }
  hwy::FlushStream();
}

}  // namespace

void FillMergeOfTarget(KernelTable* table) {
  table->transpose_ranks = TransposeRanks;
  table->widen_panel = WidenPanel;
  table->narrow_panel = NarrowPanel;
}

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {
namespace {

// Columns of a tile: a multiple of 32, of bf16's pairs, and of the tallest
// register tiles (12 and 6 rows).
constexpr int64_t kTileCols = 96;

}  // namespace

HWY_EXPORT(FillMergeOfTarget);

void FillMerge(KernelTable& table) {
  HWY_DYNAMIC_DISPATCH(FillMergeOfTarget)(&table);
}

std::unique_ptr<PackedWeight> CpuOps::NewWeight(int64_t out_dim, int64_t in_dim,
                                                DType dtype) {
  return std::make_unique<Weight>(out_dim, in_dim, dtype, &merged_);
}

void CpuOps::TransposeRanks(const RankBlocks& a, float* out) {
  const int64_t ranks = a.ranks();
  pool_.ParallelFor(
      GroupsOf(a.in_dim()), /*grain=*/4, [&](int64_t begin, int64_t end, int) {
        for (int64_t group = begin; group < end; ++group) {
          for (int64_t r = 0; r < ranks;) {
            const int64_t size = RankBlocks::BlockSize(ranks - r);
            kernels_.transpose_ranks(a.dtype(), a.block(r), size, group,
                                     out + group * kGroup * ranks + r, ranks);
            r += size;
          }
        }
      });
}

bool CpuOps::MergesInBf16(const Panels& base, std::span<const MergeTerm> terms,
                          const Panels& to) const {
  if (kernels_.bf16_merge == nullptr || terms.size() != 1) return false;
  const Lora& lora = static_cast<const Lora&>(*terms[0].weights);
  return base.dtype() == DType::kBF16 && to.dtype() == DType::kBF16 &&
         lora.a.dtype() == DType::kBF16 && lora.b.dtype() == DType::kBF16 &&
         base.cols() % 2 == 0;
}

void CpuOps::PairRanks(const RankBlocks& a, const float* transposed,
                       uint32_t* out) {
  const int64_t ranks = a.ranks();
  const int64_t pairs = (ranks + 1) / 2;
  pool_.ParallelFor(
      a.in_dim(), /*grain=*/128, [&](int64_t begin, int64_t end, int) {
        for (int64_t col = begin; col < end; ++col) {
          const float* from = transposed + col * ranks;
          uint32_t* to = out + col * pairs;
          for (int64_t r = 0; r < ranks; r += 2) {
            const uint32_t second =
                r + 1 < ranks ? BF16FromFloat(from[r + 1]) : 0;
            to[r / 2] = uint32_t{BF16FromFloat(from[r])} << 16 | second;
          }
        }
      });
}

namespace {

// The gains of a panel's rows, 0 beyond the last.
void CopyGains(const Panels& base, const float* gain, int64_t panel,
               float* gains) {
  std::fill_n(gains, kGroup, 0.0f);
  const int64_t rows = std::min(kGroup, base.rows() - panel * kGroup);
  std::copy_n(gain + panel * kGroup, rows, gains);
}

}  // namespace

void CpuOps::MergePanelBf16(const Panels& base, const MergeTerm& term,
                            const float* gain, int64_t panel, Panels& to) {
  const Panels& b = static_cast<const Lora&>(*term.weights).b;
  float gains[kGroup];
  if (gain != nullptr) CopyGains(base, gain, panel, gains);
  Bf16MergeArgs args;
  args.a = paired_.Get<uint32_t>(0);
  args.b = b.panel(panel);
  args.rank = b.cols();
  args.w = base.panel(panel);
  args.to = to.mutable_panel(panel);
  args.cols = base.cols();
  args.scale = term.scale;
  args.gain = gain == nullptr ? nullptr : gains;
  kernels_.bf16_merge(args);
}

void CpuOps::MergePanel(const Panels& base, std::span<const MergeTerm> terms,
                        const float* gain, int64_t panel, float* tile,
                        Panels& to) {
  float gains[kGroup];
  if (gain != nullptr) CopyGains(base, gain, panel, gains);
  for (int64_t begin = 0; begin < base.cols(); begin += kTileCols) {
    const int64_t count = std::min(kTileCols, base.cols() - begin);
    kernels_.widen_panel(base.dtype(), base.panel(panel), base.cols(), begin,
                         count, tile);
    for (size_t i = 0; i < terms.size(); ++i) {
      const Panels& b = static_cast<const Lora&>(*terms[i].weights).b;
      PanelGemmArgs args;
      args.x = transposed_[i].Get<float>(0) + begin * b.cols();
      args.x_stride = b.cols();
      args.rows = count;
      args.panels = b.panel(panel);
      args.dtype = b.dtype();
      args.k = b.cols();
      args.panel_count = 1;
      args.y = tile;
      args.y_stride = kGroup;
      args.accumulate = true;
      args.scale = terms[i].scale;
      kernels_.panel_gemm(args);
    }
    for (int64_t k = 0; gain != nullptr && k < count; ++k) {
      kernels_.scale(gains, nullptr, kGroup, tile + k * kGroup);
    }
    kernels_.narrow_panel(to.dtype(), tile, begin, count,
                          to.mutable_panel(panel));
  }
}

void CpuOps::Merge(const PackedWeight& w, std::span<const MergeTerm> terms,
                   const float* gain, int64_t row_begin, int64_t row_end,
                   PackedWeight& to, Stream&) {
  const Panels& base = static_cast<const Weight&>(w).panels;
  Panels& merged = static_cast<Weight&>(to).panels;
  CHECK(merged.rows() == base.rows() && merged.cols() == base.cols());
  CHECK(row_begin % kMergeRows == 0 && row_begin <= row_end &&
        (row_end == base.rows() ||
         (row_end < base.rows() && row_end % kMergeRows == 0)));
  static_assert(kMergeRows == kGroup);
  transposed_.resize(std::max(transposed_.size(), terms.size()));
  for (size_t i = 0; i < terms.size(); ++i) {
    const Lora& lora = static_cast<const Lora&>(*terms[i].weights);
    CHECK(lora.in_dim() == base.cols() && lora.out_dim() == base.rows());
    const int64_t padded = GroupsOf(lora.in_dim()) * kGroup;
    TransposeRanks(lora.a, transposed_[i].Get<float>(padded * lora.rank()));
  }
  const bool in_bf16 = MergesInBf16(base, terms, merged);
  if (in_bf16) {
    const RankBlocks& a = static_cast<const Lora&>(*terms[0].weights).a;
    PairRanks(a, transposed_[0].Get<float>(0),
              paired_.Get<uint32_t>(a.in_dim() * ((a.ranks() + 1) / 2)));
  }
  const int64_t first = row_begin / kGroup;
  pool_.ParallelFor(
      GroupsOf(row_end) - first, /*grain=*/1,
      [&](int64_t begin, int64_t end, int worker) {
        float* tile =
            tiles_[static_cast<size_t>(worker)].Get<float>(kTileCols * kGroup);
        for (int64_t i = begin; i < end; ++i) {
          if (in_bf16) {
            MergePanelBf16(base, terms[0], gain, first + i, merged);
          } else {
            MergePanel(base, terms, gain, first + i, tile, merged);
          }
        }
      });
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
