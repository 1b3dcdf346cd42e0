// y = x W^T over panels of 32 outputs.
//
// A register tile holds kRows rows of x against some vectors of outputs and
// walks k once: each output is one chain of fused multiply-adds over ascending
// k from zero, in a register of its own. Which tile computes a row has no
// influence on its bits; tiles are chosen for speed alone:
//   few rows   several panels at once, so that enough chains are in flight to
//              hide the latency of an FMA while weights stream from memory
//   more rows  one panel (or half of one, where registers are few) against up
//              to kMaxRows rows, so that a loaded weight is used often

#include <algorithm>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/operators.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {
namespace {

// 32 vector registers: 12 rows of 2 vectors leave room for weights. With 16
// registers it is 5 rows: 6 would fit, but GCC keeps both columns of a pair of
// bf16 weights and spills two sums, each then a chain through memory.
constexpr int kMaxRows = kLanes == 16 ? 12 : 5;

// Adds kRows rows of x at column k, times the weights of that column.
template <int kRows, int kVectors>
HWY_INLINE void AddColumn(const float* HWY_RESTRICT x, int64_t x_stride,
                          const FloatVec (&weight)[kVectors],
                          FloatVec (&sum)[kRows][kVectors]) {
  const FloatTag d;
  HWY_UNROLL(12)
  for (int r = 0; r < kRows; ++r) {
    const FloatVec in = hn::Set(d, x[r * x_stride]);
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = hn::MulAdd(in, weight[v], sum[r][v]);
    }
  }
}

// kPanels neighbouring panels; of each, kWidth vectors beginning with vector
// `first`.
template <DType kType, int kRows, int kPanels, int kWidth>
HWY_INLINE void Tile(const PanelGemmArgs& args, int64_t row, int64_t panel,
                     int first) {
  constexpr int kVectors = kPanels * kWidth;
  constexpr int kColumns = PanelColumns<kType>::kCount;
  constexpr int64_t kStep = kColumns * PanelColumns<kType>::kBytes;
  const FloatTag d;
  const int64_t panel_bytes = args.k * PanelColumns<kType>::kBytes;
  const int64_t x_stride = args.x_stride;
  const float* HWY_RESTRICT x = args.x + row * x_stride;
  const char* HWY_RESTRICT w = args.panels + panel * panel_bytes;

  FloatVec sum[kRows][kVectors];
  HWY_UNROLL(12)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::Zero(d);
  }
  FloatVec weight[kVectors];
  const int64_t steps = args.k / kColumns;
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t ahead =
        PrefetchOffset<kRows, kPanels>(step * kStep, panel_bytes);
    HWY_UNROLL(2)
    for (int column = 0; column < kColumns; ++column) {
      HWY_UNROLL(4)
      for (int p = 0; p < kPanels; ++p) {
        const char* group = w + p * panel_bytes + step * kStep;
        if (kRows < kMaxRows) {
          PrefetchWeights(w + p * panel_bytes + ahead + column * 64);
        }
        HWY_UNROLL(4)
        for (int v = 0; v < kWidth; ++v) {
          weight[p * kWidth + v] =
              PanelColumns<kType>::Load(group, first + v, column);
        }
      }
      AddColumn(x + step * kColumns + column, x_stride, weight, sum);
    }
  }
  if (kColumns == 2 && args.k % 2 == 1) {
    for (int p = 0; p < kPanels; ++p) {
      const char* group = w + p * panel_bytes + steps * kStep;
      for (int v = 0; v < kWidth; ++v) {
        weight[p * kWidth + v] =
            PanelColumns<kType>::LoadLast(group, first + v);
      }
    }
    AddColumn(x + steps * kColumns, x_stride, weight, sum);
  }
  const FloatVec scale = hn::Set(d, args.scale);
  HWY_UNROLL(12)
  for (int r = 0; r < kRows; ++r) {
    float* y = args.y + (row + r) * args.y_stride + panel * kGroup;
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      float* to = y + (v / kWidth) * kGroup + (first + v % kWidth) * kLanes;
      FloatVec out = sum[r][v];
      if (args.accumulate) out = hn::MulAdd(scale, out, hn::LoadU(d, to));
      hn::StoreU(out, d, to);
    }
  }
}

template <DType kType, int kRows, int kPanels, int kWidth>
HWY_INLINE void PanelTiles(const PanelGemmArgs& args, int64_t row,
                           int64_t panel) {
  for (int first = 0; first < kGroup / kLanes; first += kWidth) {
    Tile<kType, kRows, kPanels, kWidth>(args, row, panel, first);
  }
}

// All panels of kRows rows.
template <DType kType, int kRows>
void RowTile(const PanelGemmArgs& args, int64_t row) {
  // Panels and vectors at once: about 8 chains, at most what registers hold.
  constexpr int kWidth = kLanes == 8 && kRows <= 2 ? 4 : 2;
  constexpr int kPanels = kLanes == 16 && kRows == 1   ? 4
                          : kLanes == 16 && kRows <= 3 ? 2
                          : kLanes == 8 && kRows == 1  ? 2
                                                       : 1;
  int64_t panel = 0;
  for (; panel + kPanels <= args.panel_count; panel += kPanels) {
    PanelTiles<kType, kRows, kPanels, kWidth>(args, row, panel);
  }
  // The rest at once too: its time is that of a chain, not of its bytes.
  const int64_t rest = args.panel_count - panel;
  if (kPanels > 3 && rest == 3) {
    PanelTiles<kType, kRows, std::min(kPanels, 3), kWidth>(args, row, panel);
  } else if (kPanels > 2 && rest == 2) {
    PanelTiles<kType, kRows, std::min(kPanels, 2), kWidth>(args, row, panel);
  } else if (rest > 0) {
    PanelTiles<kType, kRows, 1, kWidth>(args, row, panel);
  }
}

template <DType kType, int kRows>
HWY_INLINE void DispatchRows(const PanelGemmArgs& args, int64_t row,
                             int64_t count) {
  if constexpr (kRows > 0) {
    if (count == kRows) return RowTile<kType, kRows>(args, row);
    DispatchRows<kType, kRows - 1>(args, row, count);
  }
}

// Tiles of nearly equal height: 13 rows are 7 + 6, not 12 + 1.
template <DType kType>
void PanelGemmOf(const PanelGemmArgs& args) {
  int64_t tiles = (args.rows + kMaxRows - 1) / kMaxRows;
  int64_t row = 0;
  for (; tiles > 0; --tiles) {
    const int64_t count = (args.rows - row + tiles - 1) / tiles;
    DispatchRows<kType, kMaxRows>(args, row, count);
    row += count;
  }
}

void PanelGemm(const PanelGemmArgs& args) {
  switch (args.dtype) {
    case DType::kF32:
      return PanelGemmOf<DType::kF32>(args);
    case DType::kBF16:
      return PanelGemmOf<DType::kBF16>(args);
    case DType::kF16:
      return PanelGemmOf<DType::kF16>(args);
    case DType::kI8:
      return PanelGemmOf<DType::kI8>(args);
  }
}

}  // namespace

void FillGemmOfTarget(KernelTable* table) { table->panel_gemm = PanelGemm; }

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {

HWY_EXPORT(FillGemmOfTarget);

void FillGemm(KernelTable& table) {
  HWY_DYNAMIC_DISPATCH(FillGemmOfTarget)(&table);
}

void CpuOps::Gemm(ConstTensor x, const PackedWeight& w, const float* bias,
                  Tensor y, Stream& stream) {
  const LinearPart part{{}, &w, bias, /*adaptable=*/false};
  LinearGroup(x, {&part, 1}, {}, {}, y, stream);
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
