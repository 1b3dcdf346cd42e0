// y = x / sqrt(mean(x^2) + eps) * weight. The squares are summed in four
// vectors that take turns, added as (0 + 1) + (2 + 3), then across lanes; what
// does not fill a vector is added one by one at the end.

#include <cmath>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rms_norm.cc"
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

float SumOfSquares(const float* x, int64_t n) {
  const FloatTag d;
  FloatVec sum[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    HWY_UNROLL(4)
    for (int v = 0; v < 4; ++v) {
      const FloatVec in = hn::LoadU(d, x + i + v * kLanes);
      sum[v] = hn::MulAdd(in, in, sum[v]);
    }
  }
  for (; i + kLanes <= n; i += kLanes) {
    const FloatVec in = hn::LoadU(d, x + i);
    sum[0] = hn::MulAdd(in, in, sum[0]);
  }
  const FloatVec total =
      hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3]));
  float result = hn::GetLane(hn::SumOfLanes(d, total));
  for (; i < n; ++i) result += x[i] * x[i];
  return result;
}

void RmsNormRow(const float* x, const float* weight, float eps, int64_t n,
                float* y) {
  const float mean = SumOfSquares(x, n) / static_cast<float>(n);
  const float scale = 1.0f / std::sqrt(mean + eps);
  const FloatTag d;
  const FloatVec scales = hn::Set(d, scale);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const FloatVec in = hn::Mul(hn::LoadU(d, x + i), scales);
    hn::StoreU(hn::Mul(in, hn::LoadU(d, weight + i)), d, y + i);
  }
  for (; i < n; ++i) y[i] = x[i] * scale * weight[i];
}

}  // namespace

void FillRmsNormOfTarget(KernelTable* table) { table->rms_norm = RmsNormRow; }

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {

HWY_EXPORT(FillRmsNormOfTarget);

void FillRmsNorm(KernelTable& table) {
  HWY_DYNAMIC_DISPATCH(FillRmsNormOfTarget)(&table);
}

void CpuOps::RmsNorm(ConstTensor x, const float* weight, float eps, Tensor y,
                     Stream&) {
  CHECK_EQ(x.cols, y.cols);
  ForRows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernels_.rms_norm(x.f32(i), weight, eps, x.cols, y.f32(i));
    }
  });
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
