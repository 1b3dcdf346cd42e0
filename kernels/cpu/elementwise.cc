// silu(gate) * up, y += x, gain * y + bias, narrowing to bf16: each output from
// its own inputs alone. Elements that do not fill a vector go through a padded
// copy, so that an element's bits do not depend on where it lies.

#include <cstring>
#include <limits>

#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cc"
#include "hwy/foreach_target.h"
// Highway's order.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/operators.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {
namespace {

// silu(z) = z / (1 + exp(-z)). Highway's Exp is not made for results beyond the
// largest float; there the denominator is infinite.
HWY_INLINE FloatVec SiluMulVec(FloatVec gate, FloatVec up) {
  const FloatTag d;
  const FloatVec largest = hn::Set(d, 88.0f);
  const FloatVec minus = hn::Neg(gate);
  const FloatVec infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  const FloatVec exp = hn::IfThenElse(hn::Gt(minus, largest), infinity,
                                      hn::Exp(d, hn::Min(minus, largest)));
  const FloatVec denominator = hn::Add(hn::Set(d, 1.0f), exp);
  return hn::Mul(hn::Div(gate, denominator), up);
}

void SiluMulRow(const float* gate, const float* up, int64_t n, float* y) {
  const FloatTag d;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(SiluMulVec(hn::LoadU(d, gate + i), hn::LoadU(d, up + i)), d,
               y + i);
  }
  if (i == n) return;
  HWY_ALIGN float tail[2][kLanes] = {};
  const size_t bytes = static_cast<size_t>(n - i) * sizeof(float);
  std::memcpy(tail[0], gate + i, bytes);
  std::memcpy(tail[1], up + i, bytes);
  hn::Store(SiluMulVec(hn::Load(d, tail[0]), hn::Load(d, tail[1])), d, tail[0]);
  std::memcpy(y + i, tail[0], bytes);
}

// a * x + y of one element as the vectors compute it.
HWY_INLINE float MulAddOne(float a, float x, float y) {
  const FloatTag d;
  return hn::GetLane(hn::MulAdd(hn::Set(d, a), hn::Set(d, x), hn::Set(d, y)));
}

void AddRow(const float* x, int64_t n, float* y) {
  const FloatTag d;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::Add(hn::LoadU(d, y + i), hn::LoadU(d, x + i)), d, y + i);
  }
  for (; i < n; ++i) y[i] += x[i];
}

void MulAddRow(float a, const float* x, int64_t n, float* y) {
  const FloatTag d;
  const FloatVec factor = hn::Set(d, a);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(hn::MulAdd(factor, hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d,
               y + i);
  }
  for (; i < n; ++i) y[i] = MulAddOne(a, x[i], y[i]);
}

void ScaleRow(const float* gain, const float* bias, int64_t n, float* y) {
  const FloatTag d;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const FloatVec factor = hn::LoadU(d, gain + i);
    const FloatVec in = hn::LoadU(d, y + i);
    hn::StoreU(bias == nullptr ? hn::Mul(factor, in)
                               : hn::MulAdd(factor, in, hn::LoadU(d, bias + i)),
               d, y + i);
  }
  for (; i < n; ++i) {
    y[i] = bias == nullptr ? gain[i] * y[i] : MulAddOne(gain[i], y[i], bias[i]);
  }
}

// As BF16FromFloat: to nearest even; a NaN stays one.
void ToBf16Row(const float* x, int64_t n, uint16_t* y) {
  const FloatTag d;
  const WordTag dw;
  const hn::Rebind<uint16_t, FloatTag> dh;
  const auto one = hn::Set(dw, 1u);
  const auto quiet = hn::Set(dw, 0x400000u);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const FloatVec in = hn::LoadU(d, x + i);
    const auto bits = hn::BitCast(dw, in);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), one);
    const auto rounded = hn::Add(hn::Add(bits, hn::Set(dw, 0x7FFFu)), odd);
    const auto result = hn::IfThenElse(hn::RebindMask(dw, hn::IsNaN(in)),
                                       hn::Or(bits, quiet), rounded);
    hn::StoreU(hn::TruncateTo(dh, hn::ShiftRight<16>(result)), dh, y + i);
  }
  for (; i < n; ++i) y[i] = BF16FromFloat(x[i]);
}

}  // namespace

void FillElementwiseOfTarget(KernelTable* table) {
  table->silu_mul = SiluMulRow;
  table->add = AddRow;
  table->mul_add = MulAddRow;
  table->scale = ScaleRow;
  table->to_bf16 = ToBf16Row;
}

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {

HWY_EXPORT(FillElementwiseOfTarget);

void FillElementwise(KernelTable& table) {
  HWY_DYNAMIC_DISPATCH(FillElementwiseOfTarget)(&table);
}

void CpuOps::SiluMul(ConstTensor gate, ConstTensor up, Tensor y, Stream&) {
  CHECK_EQ(gate.cols, up.cols);
  CHECK_EQ(gate.cols, y.cols);
  ForRows(gate.rows, gate.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernels_.silu_mul(gate.f32(i), up.f32(i), gate.cols, y.f32(i));
    }
  });
}

void CpuOps::ResidualAdd(ConstTensor x, Tensor y, Stream&) {
  CHECK_EQ(x.cols, y.cols);
  ForRows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernels_.add(x.f32(i), x.cols, y.f32(i));
    }
  });
}

void CpuOps::ScaleColumns(const float* gain, const float* bias, Tensor y,
                          Stream&) {
  ForRows(y.rows, y.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernels_.scale(gain, bias, y.cols, y.f32(i));
    }
  });
}

void CpuOps::ScatterColumns(ConstTensor x, std::span<const int32_t> cols,
                            Tensor y, Stream&) {
  CHECK_EQ(x.rows, y.rows);
  CHECK_EQ(x.cols, static_cast<int64_t>(cols.size()));
  for (int64_t i = 0; i < x.rows; ++i) {
    const float* in = x.f32(i);
    float* out = y.f32(i);
    for (const int32_t col : cols) out[col] = *in++;
  }
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
