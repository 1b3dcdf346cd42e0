// The inner loops of training of one SIMD target, as plain functions over
// pointers; as kernel_table.h.
//
// Plain data.

#ifndef LORIKEET_KERNELS_CPU_TRAIN_TRAIN_KERNELS_H_
#define LORIKEET_KERNELS_CPU_TRAIN_TRAIN_KERNELS_H_

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed.h"
#include "kernels/train_ops.h"

namespace lorikeet::cpu {

// Some rows of x times 32 columns of w:
//   y[r, c] = alpha * sum_k x(r, k) w[k, c]        (or += in one FMA)
// each sum one FMA chain over ascending k from 0.
struct TileProductArgs {
  // Element (r, k) is x[r * x_row + k * x_k]; one of the two is 1.
  const float* x = nullptr;
  int64_t x_row = 0;
  int64_t x_k = 1;
  int64_t rows = 0;
  int64_t k = 0;
  // [k, at least the next multiple of 16 of cols] floats are readable.
  const float* w = nullptr;
  int64_t w_k = kGroup;
  int64_t cols = kGroup;  // 1..32
  float alpha = 1;
  bool accumulate = false;
  float* y = nullptr;
  int64_t y_row = 0;
};

struct TrainKernels {
  void (*tile_product)(const TileProductArgs& args);
  // out [cols][32] f32 = a panel, columns one after the other.
  void (*widen_panel)(const Panels& panels, int64_t panel, float* out);
  // out [rows of the panels][32] f32 = columns [col, col + 32) of the matrix,
  // of panels [begin, end); missing columns are zero.
  void (*widen_columns)(const Panels& panels, int64_t begin, int64_t end,
                        int64_t col, float* out);
  // The same of bf16 panels, narrow: out [rows / 2][32][2], pairs of rows.
  void (*pair_columns)(const Panels& panels, int64_t begin, int64_t end,
                       int64_t col, uint16_t* out);
  // out [cols][32] = the transpose of m [rows <= 32, cols], zero beyond.
  void (*transpose)(const float* m, int64_t stride, int64_t rows, int64_t cols,
                    float* out);
  // One row of RmsNormBackward; adds x's factor of dweight to dweight if not
  // null.
  void (*rms_norm_backward)(const float* x, const float* weight, float eps,
                            const float* dy, int64_t n, bool accumulate,
                            float* dx);
  void (*silu_mul_backward)(const float* gate, const float* up, const float* dy,
                            int64_t n, float* dgate, float* dup);
  // out[j] += a[j] * b[j], one FMA; b may be null: out[j] += a[j].
  void (*add_product)(const float* a, const float* b, int64_t n, float* out);
  // x[i] *= factor.
  void (*multiply)(float factor, int64_t n, float* x);
  // ds[i] = p[i] * (dp[i] - along) * scale, into dp.
  void (*softmax_backward)(const float* p, float along, float scale, int64_t n,
                           float* dp);
  float (*dot)(const float* a, const float* b, int64_t n);
  void (*adamw)(const AdamWStep& step, const float* gradient, int64_t n,
                float* parameter, float* m, float* v);
};

void FillTileProduct(TrainKernels& kernels);
void FillWiden(TrainKernels& kernels);
void FillTrainElementwise(TrainKernels& kernels);
void FillOptimizer(TrainKernels& kernels);

}  // namespace lorikeet::cpu

#endif  // LORIKEET_KERNELS_CPU_TRAIN_TRAIN_KERNELS_H_
