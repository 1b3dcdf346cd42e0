// Rotates heads in place, halves as in Hugging Face: a' = a c - b s (b s is
// rounded, then fused with a c), b' = b c + a s (a s is rounded first).

#include <cmath>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cc"
#include "hwy/foreach_target.h"
// Highway's order.
#include "hwy/highway.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/operators.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {
namespace {

void RopeHead(float* x, int64_t head_dim, const float* cos, const float* sin) {
  const FloatTag d;
  const int64_t half = head_dim / 2;
  int64_t j = 0;
  for (; j + kLanes <= half; j += kLanes) {
    const FloatVec a = hn::LoadU(d, x + j);
    const FloatVec b = hn::LoadU(d, x + half + j);
    const FloatVec c = hn::LoadU(d, cos + j);
    const FloatVec s = hn::LoadU(d, sin + j);
    hn::StoreU(hn::MulSub(a, c, hn::Mul(b, s)), d, x + j);
    hn::StoreU(hn::MulAdd(b, c, hn::Mul(a, s)), d, x + half + j);
  }
  for (; j < half; ++j) {
    const float a = x[j];
    const float b = x[j + half];
    x[j] = a * cos[j] - b * sin[j];
    x[j + half] = b * cos[j] + a * sin[j];
  }
}

}  // namespace

void FillRopeOfTarget(KernelTable* table) { table->rope_head = RopeHead; }

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {

HWY_EXPORT(FillRopeOfTarget);

void FillRope(KernelTable& table) {
  HWY_DYNAMIC_DISPATCH(FillRopeOfTarget)(&table);
}

void CpuOps::Rope(Tensor x, int64_t head_dim, const float* cos,
                  const float* sin, Stream&) {
  CHECK_EQ(x.cols % head_dim, 0);
  const int64_t half = head_dim / 2;
  ForRows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t h = 0; h < x.cols; h += head_dim) {
        kernels_.rope_head(x.f32(i) + h, head_dim, cos + i * half,
                           sin + i * half);
      }
    }
  });
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
