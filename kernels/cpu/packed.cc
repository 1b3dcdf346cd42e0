#include "kernels/cpu/packed.h"

#include <algorithm>

#include "base/check.h"

namespace lorikeet::cpu {
namespace {

// One element, narrowed or widened only if the types differ: a copy keeps the
// bits.
template <typename T>
T Convert(const ConstTensor& from, DType to, int64_t row, int64_t col) {
  if (from.dtype == to) {
    return static_cast<const T*>(from.data)[row * from.stride + col];
  }
  T value;
  StoreElement(to, &value, 0, from.At(row, col));
  return value;
}

template <typename T>
void PackPanels(ConstTensor w, DType dtype, T* to) {
  for (int64_t first = 0; first < w.rows; first += kGroup) {
    const int64_t rows = std::min(kGroup, w.rows - first);
    T* panel = to + first * w.cols;
    for (int64_t i = 0; i < rows; ++i) {
      T* out = panel + PlaceInGroup(dtype, i);
      for (int64_t k = 0; k < w.cols; ++k) {
        out[k * kGroup] = Convert<T>(w, dtype, first + i, k);
      }
    }
  }
}

template <typename T>
void PackRanks(ConstTensor a, T* to) {
  const int64_t groups = GroupsOf(a.cols);
  for (int64_t first = 0; first < a.rows;) {
    const int64_t size = RankBlocks::BlockSize(a.rows - first);
    T* block = to + first * groups * kGroup;
    for (int64_t r = 0; r < size; ++r) {
      for (int64_t k = 0; k < a.cols; ++k) {
        block[((k / kGroup) * size + r) * kGroup +
              PlaceInGroup(a.dtype, k % kGroup)] =
            Convert<T>(a, a.dtype, first + r, k);
      }
    }
    first += size;
  }
}

}  // namespace

Panels::Panels(ConstTensor w, DType dtype)
    : rows_(w.rows),
      cols_(w.cols),
      dtype_(dtype),
      bytes_(GroupsOf(w.rows) * kGroup * w.cols * SizeBytes(dtype)) {
  CHECK(w.rows > 0 && w.cols > 0);
  if (dtype == DType::kF32) {
    PackPanels(w, dtype, bytes_.as<float>());
  } else {
    PackPanels(w, dtype, bytes_.as<uint16_t>());
  }
}

RankBlocks::RankBlocks(ConstTensor a)
    : ranks_(a.rows),
      in_dim_(a.cols),
      dtype_(a.dtype),
      bytes_(a.rows * GroupsOf(a.cols) * kGroup * SizeBytes(a.dtype)) {
  CHECK(a.rows > 0 && a.cols > 0);
  if (dtype_ == DType::kF32) {
    PackRanks(a, bytes_.as<float>());
  } else {
    PackRanks(a, bytes_.as<uint16_t>());
  }
}

}  // namespace lorikeet::cpu
