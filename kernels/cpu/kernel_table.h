// The inner loops of one SIMD target, as plain functions over pointers. They
// know neither threads nor tensors; operators cut the work and call them.
//
// Plain data.

#ifndef LORIKEET_KERNELS_CPU_KERNEL_TABLE_H_
#define LORIKEET_KERNELS_CPU_KERNEL_TABLE_H_

#include <cstdint>

#include "kernels/dtype.h"

namespace lorikeet::cpu {

// Rows of x times some neighbouring panels (see packed.h); kI8: of LoRA.
struct PanelGemmArgs {
  const float* x = nullptr;  // [rows, k]
  int64_t x_stride = 0;
  int64_t rows = 0;
  const char* panels = nullptr;
  DType dtype = DType::kF32;
  int64_t k = 0;
  int64_t panel_count = 0;
  float* y = nullptr;  // [rows, 32 * panel_count], all of it is written
  int64_t y_stride = 0;
  // false: y = chain. true: y = scale * chain + y, one rounding.
  bool accumulate = false;
  float scale = 1;
};

// Rows of x in 8 bits (see block_int8.h), padded to whole blocks with zeros.
struct Int8Rows {
  const int8_t* q = nullptr;         // [rows, blocks, 32]
  const float* scales = nullptr;     // [rows, blocks]
  const int32_t* offsets = nullptr;  // [rows, blocks] -128 * sum of q
  int64_t blocks = 0;
};

// As PanelGemmArgs, over int8 panels.
struct Int8GemmArgs {
  Int8Rows x;  // its first row is row 0
  int64_t rows = 0;
  const char* panels = nullptr;
  int64_t k = 0;
  int64_t panel_count = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

// As PanelGemmArgs, over bf16 panels and x rounded to bf16.
struct Bf16GemmArgs {
  const uint16_t* x = nullptr;  // [rows, k], an odd k is padded with a zero
  int64_t x_stride = 0;
  int64_t rows = 0;
  const char* panels = nullptr;
  int64_t k = 0;
  int64_t panel_count = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

// Columns of a panel of merged weights, base, A and B in bf16.
struct Bf16MergeArgs {
  // [cols, ceil(rank / 2)] of A: two neighbouring ranks of a column, the first
  // of them in the upper half; behind an odd last one 0.
  const uint32_t* a = nullptr;
  const char* b = nullptr;  // a panel of B
  int64_t rank = 0;
  const char* w = nullptr;  // a panel of W and of W', from column 0
  char* to = nullptr;
  int64_t cols = 0;  // even
  float scale = 0;
  const float* gain = nullptr;  // [32] or null
};

// One block of ranks of A against rows of x: v[t, r] = x[t] . A[r].
struct ShrinkArgs {
  const float* x = nullptr;  // [rows, k]
  int64_t x_stride = 0;
  int64_t rows = 0;
  const char* block = nullptr;
  DType dtype = DType::kF32;
  int64_t ranks = 0;  // 1, 2, 4 or 8
  int64_t k = 0;
  float* v = nullptr;  // [rows, ranks]
  int64_t v_stride = 0;
};

// Attention of `rows` consecutive rows of a sequence, some neighbouring kv
// heads with the heads that read them, over one split of 256 positions. Vector
// i = (kv head * rows + row) * group + head in group.
struct AttendArgs {
  const float* q = nullptr;  // row 0, first head of the first kv head
  int64_t q_stride = 0;      // between rows
  int64_t rows = 0;
  int64_t kv_heads = 1;
  int64_t group = 0;
  int64_t head_dim = 0;
  int64_t first_position = 0;  // of row 0
  int64_t window = 0;
  float scale = 1;
  // Cache: the first kv head's plane of block b is at base + b * block_stride.
  const char* k = nullptr;
  const char* v = nullptr;
  DType dtype = DType::kF32;
  int64_t block_stride_bytes = 0;
  int64_t block_size = 0;
  const int32_t* block_table = nullptr;
  int64_t split = 0;
  // State of the split, written: largest score, sum, unnormalized output.
  float* max = nullptr;   // [kv_heads * rows * group]
  float* sum = nullptr;   // the same, 0 = saw no key
  float* out = nullptr;   // [kv_heads * rows * group, padded head_dim]
  float* work = nullptr;  // AttendWorkFloats(head_dim)
};

inline constexpr int64_t kTile = 32;    // keys per online softmax step
inline constexpr int64_t kSplit = 256;  // positions per partial result

// head_dim as padded in the states and the work space.
constexpr int64_t PaddedHead(int64_t head_dim) {
  return (head_dim + 15) / 16 * 16;
}
// K transposed, V widened, scores of 8 vectors.
constexpr int64_t AttendWorkFloats(int64_t head_dim) {
  return 2 * kTile * PaddedHead(head_dim) + 8 * kTile;
}

struct KernelTable {
  void (*panel_gemm)(const PanelGemmArgs& args);
  void (*int8_gemm)(const Int8GemmArgs& args);
  void (*bf16_gemm)(const Bf16GemmArgs& args);  // null: no such instruction
  // q [ceil(k / 32) * 32], scales and offsets [ceil(k / 32)].
  void (*quantize_row)(const float* x, int64_t k, int8_t* q, float* scales,
                       int32_t* offsets);
  void (*shrink)(const ShrinkArgs& args);
  // 32 columns of a block of ranks: out[i * stride + r] = A[r, 32 * group + i].
  void (*transpose_ranks)(DType dtype, const char* block, int64_t ranks,
                          int64_t group, float* out, int64_t stride);
  // Columns [begin, begin + count) of a panel of `cols` columns as numbers,
  // tile [count, 32]; begin is a multiple of 32.
  void (*widen_panel)(DType dtype, const char* panel, int64_t cols,
                      int64_t begin, int64_t count, float* tile);
  // The reverse: rounds once, writes past the caches. What of a tile's last
  // group of 32 columns is missing is written to.
  void (*narrow_panel)(DType dtype, float* tile, int64_t begin, int64_t count,
                       char* panel);
  // All of it at once, to the same bits; null where it is not to be had.
  void (*bf16_merge)(const Bf16MergeArgs& args);

  void (*attend_split)(const AttendArgs& args);
  // Folds state (max2, sum2, out2) of a later split into (max, sum, out).
  void (*merge_split)(int64_t head_dim, float& max, float& sum, float* out,
                      float max2, float sum2, const float* out2);
  // y = out / sum.
  void (*finish_attention)(int64_t head_dim, float sum, const float* out,
                           float* y);

  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n,
                   float* y);
  void (*rope_head)(float* x, int64_t head_dim, const float* cos,
                    const float* sin);
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* y);
  void (*add)(const float* x, int64_t n, float* y);  // y += x
  // y = a * x + y, one FMA.
  void (*mul_add)(float a, const float* x, int64_t n, float* y);
  // y = gain * y + bias, one FMA; bias may be null: a product.
  void (*scale)(const float* gain, const float* bias, int64_t n, float* y);
  void (*to_bf16)(const float* x, int64_t n, uint16_t* y);

  // Largest value; NaN counts as -infinity, and no value as that.
  float (*largest)(const float* x, int64_t n);
  // The same and its lowest index.
  void (*arg_max)(const float* x, int64_t n, float* best, int64_t* index);
  // y[i] = exp((x[i] - offset) * scale); y may be x, or null: the sum alone.
  // Returns the sum.
  double (*exp_sum)(const float* x, float offset, float scale, int64_t n,
                    float* y);
  // Indices of x[i] >= threshold, ascending, at most n. Returns their number.
  int64_t (*find_at_least)(const float* x, int64_t n, float threshold,
                           int32_t* indices);
};

// Each fills its part for the target that Highway has chosen.
void FillGemm(KernelTable& table);
void FillInt8Gemm(KernelTable& table);
void FillLora(KernelTable& table);
void FillMerge(KernelTable& table);
void FillAttention(KernelTable& table);
void FillRmsNorm(KernelTable& table);
void FillRope(KernelTable& table);
void FillElementwise(KernelTable& table);
void FillSample(KernelTable& table);

}  // namespace lorikeet::cpu

#endif  // LORIKEET_KERNELS_CPU_KERNEL_TABLE_H_
