// How the AVX-512 GEMM kernels walk rows and panels. Included inside of a
// region of target attributes, so that tiles can be inlined.
//
// A Kernel has kMaxRows, the rows of its tallest tile, and
//   template <int kRows, int kPanels>
//   static void Tile(const Args& args, int64_t row, int64_t panel);

#ifndef LORIKEET_KERNELS_CPU_TILE_WALK_INL_H_
#define LORIKEET_KERNELS_CPU_TILE_WALK_INL_H_

#include <algorithm>
#include <cstdint>

#include "hwy/base.h"

namespace lorikeet::cpu {

// All panels of kRows rows: few rows take several panels at once, so that
// enough chains are in flight.
template <typename Kernel, int kRows, typename Args>
void WalkPanels(const Args& args, int64_t row) {
  constexpr int kPanels = kRows == 1 ? 4 : kRows <= 3 ? 2 : 1;
  int64_t panel = 0;
  for (; panel + kPanels <= args.panel_count; panel += kPanels) {
    Kernel::template Tile<kRows, kPanels>(args, row, panel);
  }
  // The rest at once too: its time is that of a chain, not of its bytes.
  const int64_t rest = args.panel_count - panel;
  if (kPanels > 3 && rest == 3) {
    Kernel::template Tile<kRows, std::min(kPanels, 3)>(args, row, panel);
  } else if (kPanels > 2 && rest == 2) {
    Kernel::template Tile<kRows, std::min(kPanels, 2)>(args, row, panel);
  } else if (rest > 0) {
    Kernel::template Tile<kRows, 1>(args, row, panel);
  }
}

template <typename Kernel, int kRows, typename Args>
HWY_INLINE void DispatchRows(const Args& args, int64_t row, int64_t count) {
  if constexpr (kRows > 0) {
    if (count == kRows) return WalkPanels<Kernel, kRows>(args, row);
    DispatchRows<Kernel, kRows - 1>(args, row, count);
  }
}

// All rows, in tiles of nearly equal height.
template <typename Kernel, typename Args>
void WalkRows(const Args& args) {
  int64_t row = 0;
  for (int64_t tiles = (args.rows + Kernel::kMaxRows - 1) / Kernel::kMaxRows;
       tiles > 0; --tiles) {
    const int64_t count = (args.rows - row + tiles - 1) / tiles;
    DispatchRows<Kernel, Kernel::kMaxRows>(args, row, count);
    row += count;
  }
}

}  // namespace lorikeet::cpu

#endif  // LORIKEET_KERNELS_CPU_TILE_WALK_INL_H_
