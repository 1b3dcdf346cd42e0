// AdamW, element by element, and the norm of gradients.
//
// Limit: memory, 28 bytes an element (four read, three written).

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/train/optimizer.cc"
#include "hwy/foreach_target.h"
// Highway's order.
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/cpu/train/operators.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {
namespace {

// The step's factors, computed once in double.
struct Factors {
  explicit Factors(const AdamWStep& step) {
    const double t = static_cast<double>(step.step);
    const double lr = static_cast<double>(step.learning_rate);
    const double correction1 = 1 - std::pow(static_cast<double>(step.beta1), t);
    const double correction2 = 1 - std::pow(static_cast<double>(step.beta2), t);
    keep = static_cast<float>(1 - lr * static_cast<double>(step.weight_decay));
    rate = static_cast<float>(lr / correction1);
    root = static_cast<float>(1 / std::sqrt(correction2));
  }
  float keep, rate, root;
};

HWY_INLINE void Update(const AdamWStep& step, const Factors& factors,
                       const float* gradient, float* parameter, float* m,
                       float* v) {
  const FloatTag d;
  const FloatVec g =
      hn::Mul(hn::Set(d, step.gradient_scale), hn::LoadU(d, gradient));
  const FloatVec mi =
      hn::MulAdd(hn::Set(d, 1 - step.beta1), g,
                 hn::Mul(hn::Set(d, step.beta1), hn::LoadU(d, m)));
  const FloatVec vi =
      hn::MulAdd(hn::Mul(hn::Set(d, 1 - step.beta2), g), g,
                 hn::Mul(hn::Set(d, step.beta2), hn::LoadU(d, v)));
  hn::StoreU(mi, d, m);
  hn::StoreU(vi, d, v);
  const FloatVec denominator =
      hn::MulAdd(hn::Sqrt(vi), hn::Set(d, factors.root), hn::Set(d, step.eps));
  const FloatVec p = hn::Mul(hn::Set(d, factors.keep), hn::LoadU(d, parameter));
  hn::StoreU(
      hn::NegMulAdd(hn::Set(d, factors.rate), hn::Div(mi, denominator), p), d,
      parameter);
}

void AdamW(const AdamWStep& step, const float* gradient, int64_t n,
           float* parameter, float* m, float* v) {
  const Factors factors(step);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Update(step, factors, gradient + i, parameter + i, m + i, v + i);
  }
  if (i == n) return;
  HWY_ALIGN float tail[4][kLanes] = {};
  const size_t bytes = static_cast<size_t>(n - i) * sizeof(float);
  std::memcpy(tail[0], gradient + i, bytes);
  std::memcpy(tail[1], parameter + i, bytes);
  std::memcpy(tail[2], m + i, bytes);
  std::memcpy(tail[3], v + i, bytes);
  Update(step, factors, tail[0], tail[1], tail[2], tail[3]);
  std::memcpy(parameter + i, tail[1], bytes);
  std::memcpy(m + i, tail[2], bytes);
  std::memcpy(v + i, tail[3], bytes);
}

}  // namespace

void FillOptimizerOfTarget(TrainKernels* kernels) { kernels->adamw = AdamW; }

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {
namespace {

constexpr int64_t kTileElements = 4096;

}  // namespace

HWY_EXPORT(FillOptimizerOfTarget);

void FillOptimizer(TrainKernels& kernels) {
  HWY_DYNAMIC_DISPATCH(FillOptimizerOfTarget)(&kernels);
}

void CpuTrainOps::AdamW(const AdamWStep& step, std::span<const float> gradient,
                        std::span<float> parameter, std::span<float> m,
                        std::span<float> v, Stream&) {
  const int64_t n = static_cast<int64_t>(gradient.size());
  CHECK_EQ(gradient.size(), parameter.size());
  CHECK_EQ(gradient.size(), m.size());
  CHECK_EQ(gradient.size(), v.size());
  const int64_t tiles = (n + kTileElements - 1) / kTileElements;
  pool_.ParallelFor(
      std::max<int64_t>(tiles, 1), 16, [&](int64_t begin, int64_t end, int) {
        const int64_t first = begin * kTileElements;
        const int64_t count = std::min(end * kTileElements, n) - first;
        train_.adamw(step, gradient.data() + first, count,
                     parameter.data() + first, m.data() + first,
                     v.data() + first);
      });
}

void CpuTrainOps::SumOfSquares(std::span<const float> x, double* out, Stream&) {
  const int64_t n = static_cast<int64_t>(x.size());
  const int64_t tiles = (n + kTileElements - 1) / kTileElements;
  std::vector<double> sums(static_cast<size_t>(tiles));
  pool_.ParallelFor(tiles, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t tile = begin; tile < end; ++tile) {
      double sum = 0;
      for (int64_t i = tile * kTileElements;
           i < std::min((tile + 1) * kTileElements, n); ++i) {
        const double value = static_cast<double>(x[static_cast<size_t>(i)]);
        sum += value * value;
      }
      sums[static_cast<size_t>(tile)] = sum;
    }
  });
  *out = 0;
  for (const double sum : sums) *out += sum;
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
