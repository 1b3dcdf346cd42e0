// Packed weights as f32, a panel or 32 columns at a time.
//
// The transposed form goes block by block: 32 outputs by 32 columns of a panel
// lie together in memory. Of bf16 (pairs of columns) and int8 (four columns) an
// output's columns share 32-bit words, so 4 x 4 words are transposed in
// registers and then widened.

#include <algorithm>
#include <cstring>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/train/widen.cc"
#include "hwy/foreach_target.h"
// Highway's order.
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/cpu/train/train_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {
namespace {

using Words4 = hn::FixedTag<uint32_t, 4>;
using Word4 = hn::Vec<Words4>;

// rows[i][j] becomes rows[j][i].
HWY_INLINE void Transpose4(Word4 (&rows)[4]) {
  const Words4 d;
  const hn::Repartition<uint64_t, Words4> d64;
  const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, rows[0], rows[1]));
  const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, rows[2], rows[3]));
  const auto up01 = hn::BitCast(d64, hn::InterleaveUpper(d, rows[0], rows[1]));
  const auto up23 = hn::BitCast(d64, hn::InterleaveUpper(d, rows[2], rows[3]));
  rows[0] = hn::BitCast(d, hn::InterleaveLower(d64, low01, low23));
  rows[1] = hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23));
  rows[2] = hn::BitCast(d, hn::InterleaveLower(d64, up01, up23));
  rows[3] = hn::BitCast(d, hn::InterleaveUpper(d64, up01, up23));
}

// Four words of an output's bf16 columns -> 8 floats.
HWY_INLINE void StoreBf16(Word4 words, float* out) {
  const Words4 d;
  const Word4 even = hn::ShiftLeft<16>(words);
  const Word4 odd = hn::And(words, hn::Set(d, 0xFFFF0000u));
  uint32_t* to = reinterpret_cast<uint32_t*>(out);
  hn::StoreU(hn::InterleaveLower(d, even, odd), d, to);
  hn::StoreU(hn::InterleaveUpper(d, even, odd), d, to + 4);
}

// A [32 columns][32 outputs] block of a bf16 panel -> out [32 outputs][32].
void TransposeBf16Block(const char* block, float* out) {
  const Words4 d;
  const uint32_t* words = reinterpret_cast<const uint32_t*>(block);
  for (int pair = 0; pair < 16; pair += 4) {
    for (int output = 0; output < kGroup; output += 4) {
      Word4 rows[4];
      for (int i = 0; i < 4; ++i) {
        rows[i] = hn::LoadU(d, words + (pair + i) * kGroup + output);
      }
      Transpose4(rows);
      for (int i = 0; i < 4; ++i) {
        StoreBf16(rows[i], out + (output + i) * kGroup + pair * 2);
      }
    }
  }
}

// The same, narrow: out [16 pairs of outputs][32 columns][2].
void PairBf16Block(const char* block, uint32_t* out) {
  const Words4 d;
  const hn::FixedTag<uint16_t, 8> d16;
  const uint32_t* words = reinterpret_cast<const uint32_t*>(block);
  for (int pair = 0; pair < 16; pair += 4) {
    for (int output = 0; output < kGroup; output += 4) {
      Word4 rows[4];
      for (int i = 0; i < 4; ++i) {
        rows[i] = hn::LoadU(d, words + (pair + i) * kGroup + output);
      }
      Transpose4(rows);
      for (int i = 0; i < 4; i += 2) {
        const auto first = hn::BitCast(d16, rows[i]);
        const auto second = hn::BitCast(d16, rows[i + 1]);
        uint32_t* to = out + (output + i) / 2 * kGroup + pair * 2;
        hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d16, first, second)), d,
                   to);
        hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d16, first, second)), d,
                   to + 4);
      }
    }
  }
}

// What has no fast form: the last columns.
void PairColumnsSlowly(const Panels& panels, int64_t panel, int64_t col,
                       uint16_t* out) {
  for (int64_t i = 0; i < kGroup; ++i) {
    const int64_t row = panel * kGroup + i;
    for (int64_t j = 0; j < kGroup; ++j) {
      const bool is_there = row < panels.rows() && col + j < panels.cols();
      out[(i / 2 * kGroup + j) * 2 + i % 2] =
          is_there ? BF16FromFloat(panels.At(row, col + j)) : 0;
    }
  }
}

void PairColumns(const Panels& panels, int64_t begin, int64_t end, int64_t col,
                 uint16_t* out) {
  CHECK(panels.dtype() == DType::kBF16);
  const bool is_whole = col + kGroup <= panels.cols();
  for (int64_t p = begin; p < end; ++p, out += kGroup * kGroup) {
    if (is_whole) {
      PairBf16Block(panels.panel(p) + col * kGroup * 2,
                    reinterpret_cast<uint32_t*>(out));
    } else {
      PairColumnsSlowly(panels, p, col, out);
    }
  }
}

// A [32 columns][32 outputs] block of f32 -> out [32 outputs][32].
void TransposeF32Block(const float* block, float* out) {
  const Words4 d;
  for (int column = 0; column < kGroup; column += 4) {
    for (int output = 0; output < kGroup; output += 4) {
      Word4 rows[4];
      for (int i = 0; i < 4; ++i) {
        rows[i] = hn::LoadU(d, reinterpret_cast<const uint32_t*>(block) +
                                   (column + i) * kGroup + output);
      }
      Transpose4(rows);
      for (int i = 0; i < 4; ++i) {
        hn::StoreU(
            rows[i], d,
            reinterpret_cast<uint32_t*>(out) + (output + i) * kGroup + column);
      }
    }
  }
}

// A block of an int8 panel -> out [32 outputs][32].
void TransposeInt8Block(const char* block, float* out) {
  const hn::FixedTag<uint8_t, 4> d8;
  const hn::FixedTag<int32_t, 4> d32;
  const hn::FixedTag<float, 4> df;
  const auto bias = hn::Set(d32, 128);
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(block) + kGroup * 2;
  for (int output = 0; output < kGroup; ++output) {
    uint16_t bits;
    std::memcpy(&bits, block + output * 2, 2);
    const auto scale = hn::Set(df, FloatFromF16(bits));
    for (int four = 0; four < kGroup / 4; ++four) {
      const auto q = hn::PromoteTo(
          d32, hn::LoadU(d8, bytes + (four * kGroup + output) * 4));
      hn::StoreU(hn::Mul(scale, hn::ConvertTo(df, hn::Sub(q, bias))), df,
                 out + output * kGroup + four * 4);
    }
  }
}

void TransposeMatrix(const float* m, int64_t stride, int64_t rows, int64_t cols,
                     float* out) {
  const Words4 d;
  int64_t col = 0;
  for (; rows == kGroup && col + 4 <= cols; col += 4) {
    for (int row = 0; row < kGroup; row += 4) {
      Word4 words[4];
      for (int i = 0; i < 4; ++i) {
        words[i] = hn::LoadU(
            d, reinterpret_cast<const uint32_t*>(m + (row + i) * stride + col));
      }
      Transpose4(words);
      for (int i = 0; i < 4; ++i) {
        hn::StoreU(words[i], d,
                   reinterpret_cast<uint32_t*>(out + (col + i) * kGroup + row));
      }
    }
  }
  for (; col < cols; ++col) {
    for (int64_t row = 0; row < kGroup; ++row) {
      out[col * kGroup + row] = row < rows ? m[row * stride + col] : 0;
    }
  }
}

// What has no fast form: f16, and the last columns.
void WidenColumnsSlowly(const Panels& panels, int64_t panel, int64_t col,
                        float* out) {
  for (int64_t i = 0; i < kGroup; ++i) {
    const int64_t row = panel * kGroup + i;
    for (int64_t j = 0; j < kGroup; ++j) {
      const bool is_there = row < panels.rows() && col + j < panels.cols();
      out[i * kGroup + j] = is_there ? panels.At(row, col + j) : 0;
    }
  }
}

void WidenColumns(const Panels& panels, int64_t begin, int64_t end, int64_t col,
                  float* out) {
  const bool is_whole = col + kGroup <= panels.cols();
  for (int64_t p = begin; p < end; ++p, out += kGroup * kGroup) {
    const char* panel = panels.panel(p);
    if (panels.dtype() == DType::kI8) {  // whole blocks, padded with zeros
      TransposeInt8Block(panel + col / kGroup * kInt8PanelBlockBytes, out);
    } else if (!is_whole || panels.dtype() == DType::kF16) {
      WidenColumnsSlowly(panels, p, col, out);
    } else if (panels.dtype() == DType::kBF16) {
      TransposeBf16Block(panel + col * kGroup * 2, out);
    } else {
      TransposeF32Block(
          reinterpret_cast<const float*>(panel + col * kGroup * 4), out);
    }
  }
}

template <DType kType>
void WidenPanelOf(const char* panel, int64_t cols, float* out) {
  constexpr int kColumns = PanelColumns<kType>::kCount;
  constexpr int64_t kStep = kColumns * kGroup * SizeBytes(kType);
  const FloatTag d;
  const int64_t steps = cols / kColumns;
  for (int64_t step = 0; step < steps; ++step) {
    for (int column = 0; column < kColumns; ++column, out += kGroup) {
      for (int v = 0; v < kGroup / kLanes; ++v) {
        hn::StoreU(PanelColumns<kType>::Load(panel + step * kStep, v, column),
                   d, out + v * kLanes);
      }
    }
  }
  if (kColumns == 2 && cols % 2 == 1) {
    for (int v = 0; v < kGroup / kLanes; ++v) {
      hn::StoreU(PanelColumns<kType>::LoadLast(panel + steps * kStep, v), d,
                 out + v * kLanes);
    }
  }
}

// Blocks of 32 columns, each transposed back.
void WidenInt8Panel(const char* panel, int64_t cols, float* out) {
  HWY_ALIGN float block[kGroup * kGroup];
  for (int64_t col = 0; col < cols; col += kGroup) {
    TransposeInt8Block(panel + col / kGroup * kInt8PanelBlockBytes, block);
    TransposeMatrix(block, kGroup, kGroup, std::min(kGroup, cols - col),
                    out + col * kGroup);
  }
}

void WidenPanel(const Panels& panels, int64_t index, float* out) {
  const char* panel = panels.panel(index);
  switch (panels.dtype()) {
    case DType::kF32:
      return WidenPanelOf<DType::kF32>(panel, panels.cols(), out);
    case DType::kBF16:
      return WidenPanelOf<DType::kBF16>(panel, panels.cols(), out);
    case DType::kF16:
      return WidenPanelOf<DType::kF16>(panel, panels.cols(), out);
    case DType::kI8:
      return WidenInt8Panel(panel, panels.cols(), out);
  }
}

}  // namespace

void FillWidenOfTarget(TrainKernels* kernels) {
  kernels->widen_panel = WidenPanel;
  kernels->widen_columns = WidenColumns;
  kernels->pair_columns = PairColumns;
  kernels->transpose = TransposeMatrix;
}

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {

HWY_EXPORT(FillWidenOfTarget);

void FillWiden(TrainKernels& kernels) {
  HWY_DYNAMIC_DISPATCH(FillWidenOfTarget)(&kernels);
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
