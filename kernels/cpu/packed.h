// Weights as the CPU kernels read them.
//
// Panels holds a matrix [rows, cols] in panels of 32 rows (outputs), so that a
// vector holds different outputs and the column index k runs through memory.
// Missing rows of the last panel are zero. In a panel:
//   f32, f16  [cols][32]
//   bf16      [cols / 2][32][2]: columns k and k + 1 of an output share a
//             32-bit lane (low and high half). Widening is a shift or a mask,
//             and the pair is what a bf16 dot-product instruction reads. An odd
//             last column follows as [32].
//   int8      [ceil(cols / 32)] blocks of 32 f16 scales and then [8][32][4]
//             bytes: four columns of an output in a lane, biased by 128, as
//             8-bit dot-product instructions read them (see block_int8.h)
//
// LoRA's B [out, rank] is kept as Panels; A [rank, in] as RankBlocks: blocks of
// 8, 4, 2 or 1 ranks (no padding), each [ceil(in / 32)][ranks][32], lanes along
// k. There element i and i + 16 of a group of 32 bf16 share a 32-bit lane. In 8
// bits (lora_int8.h) each 32 numbers of a rank, or of a column of a panel, are
// a bf16 scale and 32 bytes:
//   A  [ceil(in / 32)][ranks] vectors      B  [cols] vectors
//
// Immutable, but for weights that Merge fills before anybody reads them.

#ifndef LORIKEET_KERNELS_CPU_PACKED_H_
#define LORIKEET_KERNELS_CPU_PACKED_H_

#include <cstdint>
#include <utility>

#include "absl/strings/string_view.h"
#include "kernels/block_int8.h"
#include "kernels/lora_int8.h"
#include "kernels/ops.h"

namespace lorikeet::cpu {

inline constexpr int64_t kGroup = 32;
// 32 scales and 32 x 32 numbers.
inline constexpr int64_t kInt8PanelBlockBytes = kGroup * 2 + kGroup * kGroup;

// Where element i of a group of 32 of a rank is stored.
constexpr int64_t PlaceInGroup(DType dtype, int64_t i) {
  if (dtype != DType::kBF16) return i;
  return i < 16 ? 2 * i : 2 * (i - 16) + 1;
}

constexpr int64_t GroupsOf(int64_t count) {
  return (count + kGroup - 1) / kGroup;
}

// Bytes of 32 numbers of LoRA.
constexpr int64_t LoraVectorBytes(DType dtype) {
  static_assert(kGroup == kLoraVector);
  return dtype == DType::kI8 ? kLoraInt8VectorBytes : kGroup * SizeBytes(dtype);
}
// Element i of a vector in 8 bits.
inline float LoraInt8Element(const char* vector, int64_t i) {
  return LoadElement(DType::kBF16, vector, 0) *
         static_cast<float>(static_cast<int8_t>(vector[2 + i]));
}

// Bytes of one panel of `cols` columns.
constexpr int64_t PanelBytes(DType dtype, int64_t cols) {
  if (dtype == DType::kI8) return GroupsOf(cols) * kInt8PanelBlockBytes;
  return cols * kGroup * SizeBytes(dtype);
}

// Where to prefetch in a panel while `offset` of it is read and kPanels
// neighbours are walked side by side for kRows rows: some way ahead or, past
// its end, in the panel that will be read next. Into the second-level cache:
// the first has too few misses in flight. One row alone reads fastest and wants
// the shorter way (on Zen 4).
template <int kRows, int kPanels>
constexpr int64_t PrefetchOffset(int64_t offset, int64_t panel_bytes) {
  constexpr int64_t kDistance = kRows == 1 ? 2048 : 8192;
  const int64_t ahead = offset + kDistance;
  return ahead < panel_bytes ? ahead : ahead + (kPanels - 1) * panel_bytes;
}
// Inlined at once: GCC takes a function that does nothing but this for one
// without effect and drops the call.
__attribute__((always_inline)) inline void PrefetchWeights(const char* at) {
  __builtin_prefetch(at, /*rw=*/0, /*locality=*/1);
}

class Panels {
 public:
  // The memory comes from `arena` if there is one.
  Panels(ConstTensor w, DType dtype, Arena* arena = nullptr);
  // Takes what bytes() of another gave. REQUIRES: the size fits.
  Panels(int64_t rows, int64_t cols, DType dtype, absl::string_view bytes,
         Arena* arena = nullptr);
  // Without content.
  Panels(int64_t rows, int64_t cols, DType dtype, Arena* arena);
  // LoRA's B in 8 bits.
  static Panels Int8Columns(ConstTensor b);

  // Element (row, col) as a number.
  float At(int64_t row, int64_t col) const;
  // Writes all columns of a row.
  void Row(int64_t row, float* out) const;

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t count() const { return GroupsOf(rows_); }
  DType dtype() const { return dtype_; }
  int64_t size_bytes() const { return bytes_.size_bytes(); }
  int64_t panel_bytes() const {
    return is_lora_int8_ ? cols_ * kLoraInt8VectorBytes
                         : PanelBytes(dtype_, cols_);
  }
  absl::string_view bytes() const {
    return {bytes_.data(), static_cast<size_t>(bytes_.size_bytes())};
  }
  const char* panel(int64_t index) const {
    return bytes_.data() + index * panel_bytes();
  }
  char* mutable_panel(int64_t index) {
    return bytes_.data() + index * panel_bytes();
  }

 private:
  Panels(int64_t rows, int64_t cols, DType dtype, bool is_lora_int8,
         Buffer bytes);

  int64_t rows_;
  int64_t cols_;
  DType dtype_;
  bool is_lora_int8_ = false;
  Buffer bytes_;
};

class RankBlocks {
 public:
  // `dtype`: that of A, or kI8.
  RankBlocks(ConstTensor a, DType dtype);

  // The largest block that begins at `rank`: 8, 4, 2 or 1.
  static int64_t BlockSize(int64_t ranks_left) {
    return ranks_left >= 8 ? 8 : ranks_left >= 4 ? 4 : ranks_left >= 2 ? 2 : 1;
  }
  int64_t ranks() const { return ranks_; }
  int64_t in_dim() const { return in_dim_; }
  DType dtype() const { return dtype_; }
  int64_t size_bytes() const { return bytes_.size_bytes(); }
  // Bytes of one rank.
  int64_t rank_bytes() const {
    return GroupsOf(in_dim_) * LoraVectorBytes(dtype_);
  }
  // REQUIRES: a block begins at `rank`.
  const char* block(int64_t rank) const {
    return bytes_.data() + rank * rank_bytes();
  }

 private:
  int64_t ranks_;
  int64_t in_dim_;
  DType dtype_;
  Buffer bytes_;
};

class Weight final : public PackedWeight {
 public:
  Weight(ConstTensor w, DType dtype, Arena* arena) : panels(w, dtype, arena) {}
  Weight(int64_t rows, int64_t cols, DType dtype, absl::string_view bytes,
         Arena* arena)
      : panels(rows, cols, dtype, bytes, arena) {}
  Weight(int64_t rows, int64_t cols, DType dtype, Arena* arena)
      : panels(rows, cols, dtype, arena) {}
  int64_t out_dim() const override { return panels.rows(); }
  int64_t in_dim() const override { return panels.cols(); }
  DType dtype() const override { return panels.dtype(); }
  int64_t size_bytes() const override { return panels.size_bytes(); }
  absl::string_view packed_bytes() const override { return panels.bytes(); }

  Panels panels;
};

class Lora final : public PackedLora {
 public:
  Lora(RankBlocks a_in, Panels b_in) : a(std::move(a_in)), b(std::move(b_in)) {}
  int64_t rank() const override { return a.ranks(); }
  int64_t in_dim() const override { return a.in_dim(); }
  int64_t out_dim() const override { return b.rows(); }
  int64_t size_bytes() const override {
    return a.size_bytes() + b.size_bytes();
  }

  const RankBlocks a;
  const Panels b;
};

}  // namespace lorikeet::cpu

#endif  // LORIKEET_KERNELS_CPU_PACKED_H_
