// The inner loop of every product of training: 12 (or 6) rows of x against two
// vectors of columns, each output one chain in a register of its own, as in
// gemm.cc. x is read by rows or by columns, so that sums over tokens need no
// transposed copy. Columns that do not fill a vector go through a padded tile.

#include <algorithm>
#include <cstring>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/train/tile_product.cc"
#include "hwy/foreach_target.h"
// Highway's order.
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/cpu/train/train_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {
namespace {

constexpr int kMaxRows = kLanes == 16 ? 12 : 6;

// kByColumn: x_row is 1, else x_k is. `y` is the place of the first output.
template <bool kByColumn, int kRows, int kVectors>
HWY_INLINE void Tile(const TileProductArgs& args, int64_t row, const float* w,
                     float* y, int64_t y_row) {
  const FloatTag d;
  const int64_t stride = kByColumn ? args.x_k : args.x_row;
  const int64_t w_k = args.w_k;
  const float* HWY_RESTRICT x = args.x + row * args.x_row;
  FloatVec sum[kRows][kVectors];
  HWY_UNROLL(12)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(2)
    for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::Zero(d);
  }
  for (int64_t k = 0; k < args.k; ++k) {
    FloatVec weight[kVectors];
    HWY_UNROLL(2)
    for (int v = 0; v < kVectors; ++v) {
      weight[v] = hn::LoadU(d, w + k * w_k + v * kLanes);
    }
    HWY_UNROLL(12)
    for (int r = 0; r < kRows; ++r) {
      const FloatVec in =
          hn::Set(d, kByColumn ? x[k * stride + r] : x[r * stride + k]);
      HWY_UNROLL(2)
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = hn::MulAdd(in, weight[v], sum[r][v]);
      }
    }
  }
  const FloatVec alpha = hn::Set(d, args.alpha);
  HWY_UNROLL(12)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(2)
    for (int v = 0; v < kVectors; ++v) {
      float* to = y + r * y_row + v * kLanes;
      const FloatVec out = args.accumulate
                               ? hn::MulAdd(alpha, sum[r][v], hn::LoadU(d, to))
                               : hn::Mul(alpha, sum[r][v]);
      hn::StoreU(out, d, to);
    }
  }
}

// Columns [first, first + kVectors vectors) of kRows rows, of which `cols`
// exist.
template <bool kByColumn, int kRows, int kVectors>
HWY_INLINE void ColumnTile(const TileProductArgs& args, int64_t row, int first,
                           int64_t cols) {
  constexpr int kWidth = kVectors * kLanes;
  float* y = args.y + row * args.y_row + first;
  if (cols >= kWidth) {
    return Tile<kByColumn, kRows, kVectors>(args, row, args.w + first, y,
                                            args.y_row);
  }
  HWY_ALIGN float padded[kRows * kWidth];
  const size_t bytes = static_cast<size_t>(cols) * sizeof(float);
  for (int r = 0; r < kRows && args.accumulate; ++r) {
    std::memcpy(padded + r * kWidth, y + r * args.y_row, bytes);
  }
  Tile<kByColumn, kRows, kVectors>(args, row, args.w + first, padded, kWidth);
  for (int r = 0; r < kRows; ++r) {
    std::memcpy(y + r * args.y_row, padded + r * kWidth, bytes);
  }
}

template <bool kByColumn, int kRows>
void RowTile(const TileProductArgs& args, int64_t row) {
  int64_t first = 0;
  for (; args.cols - first > kLanes; first += 2 * kLanes) {
    ColumnTile<kByColumn, kRows, 2>(args, row, static_cast<int>(first),
                                    args.cols - first);
  }
  if (first < args.cols) {
    ColumnTile<kByColumn, kRows, 1>(args, row, static_cast<int>(first),
                                    args.cols - first);
  }
}

template <bool kByColumn, int kRows>
HWY_INLINE void DispatchRows(const TileProductArgs& args, int64_t row,
                             int64_t count) {
  if constexpr (kRows > 0) {
    if (count == kRows) return RowTile<kByColumn, kRows>(args, row);
    DispatchRows<kByColumn, kRows - 1>(args, row, count);
  }
}

template <bool kByColumn>
void AllRows(const TileProductArgs& args) {
  int64_t row = 0;
  for (int64_t tiles = (args.rows + kMaxRows - 1) / kMaxRows; tiles > 0;
       --tiles) {
    const int64_t count = (args.rows - row + tiles - 1) / tiles;
    DispatchRows<kByColumn, kMaxRows>(args, row, count);
    row += count;
  }
}

void TileProduct(const TileProductArgs& args) {
  if (args.x_k == 1) return AllRows<false>(args);
  CHECK_EQ(args.x_row, 1);
  AllRows<true>(args);
}

}  // namespace

void FillTileProductOfTarget(TrainKernels* kernels) {
  kernels->tile_product = TileProduct;
}

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {

HWY_EXPORT(FillTileProductOfTarget);

void FillTileProduct(TrainKernels& kernels) {
  HWY_DYNAMIC_DISPATCH(FillTileProductOfTarget)(&kernels);
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
