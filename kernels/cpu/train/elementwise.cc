// Backward of RMSNorm and SwiGLU, column sums over tokens, dropout, rows of the
// embedding. Rows are independent; sums over tokens are one chain a column,
// threads take columns. Elements that do not fill a vector go through padded
// copies.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/random.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/train/elementwise.cc"
#include "hwy/foreach_target.h"
// Highway's order.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/cpu/simd-inl.h"
#include "kernels/cpu/train/operators.h"

HWY_BEFORE_NAMESPACE();
namespace lorikeet::cpu {
namespace HWY_NAMESPACE {
namespace {

// A vector of x + i, of which `n - i` elements exist; the others are 0.
HWY_INLINE FloatVec LoadSome(const float* x, int64_t i, int64_t n) {
  const FloatTag d;
  if (i + kLanes <= n) return hn::LoadU(d, x + i);
  HWY_ALIGN float padded[kLanes] = {};
  std::memcpy(padded, x + i, static_cast<size_t>(n - i) * sizeof(float));
  return hn::Load(d, padded);
}

HWY_INLINE void StoreSome(FloatVec value, int64_t i, int64_t n, float* y) {
  const FloatTag d;
  if (i + kLanes <= n) return hn::StoreU(value, d, y + i);
  HWY_ALIGN float padded[kLanes];
  hn::Store(value, d, padded);
  std::memcpy(y + i, padded, static_cast<size_t>(n - i) * sizeof(float));
}

void RmsNormBackwardRow(const float* x, const float* weight, float eps,
                        const float* dy, int64_t n, bool accumulate,
                        float* dx) {
  const FloatTag d;
  FloatVec squares = hn::Zero(d);
  FloatVec along = hn::Zero(d);
  for (int64_t i = 0; i < n; i += kLanes) {
    const FloatVec in = LoadSome(x, i, n);
    squares = hn::MulAdd(in, in, squares);
    along = hn::MulAdd(hn::Mul(in, LoadSome(weight, i, n)), LoadSome(dy, i, n),
                       along);
  }
  const float count = static_cast<float>(n);
  const float mean = hn::GetLane(hn::SumOfLanes(d, squares)) / count;
  const float r = 1.0f / std::sqrt(mean + eps);
  const float back = -r * r * r * hn::GetLane(hn::SumOfLanes(d, along)) / count;
  const FloatVec rs = hn::Set(d, r);
  const FloatVec backs = hn::Set(d, back);
  for (int64_t i = 0; i < n; i += kLanes) {
    const FloatVec g =
        hn::Mul(hn::Mul(LoadSome(weight, i, n), rs), LoadSome(dy, i, n));
    FloatVec out = hn::MulAdd(LoadSome(x, i, n), backs, g);
    if (accumulate) out = hn::Add(LoadSome(dx, i, n), out);
    StoreSome(out, i, n, dx);
  }
}

void SiluMulBackwardRow(const float* gate, const float* up, const float* dy,
                        int64_t n, float* dgate, float* dup) {
  const FloatTag d;
  const FloatVec one = hn::Set(d, 1.0f);
  const FloatVec largest = hn::Set(d, 80.0f);
  for (int64_t i = 0; i < n; i += kLanes) {
    const FloatVec g = LoadSome(gate, i, n);
    const FloatVec u = LoadSome(up, i, n);
    const FloatVec grad = LoadSome(dy, i, n);
    // exp(80) is finite and 1 / (1 + exp(80)) small beyond any use.
    const FloatVec e = hn::Exp(d, hn::Min(hn::Neg(g), largest));
    const FloatVec s = hn::Div(one, hn::Add(one, e));
    const FloatVec slope =
        hn::Mul(s, hn::MulAdd(g, hn::Sub(one, s), one));  // s (1 + g (1 - s))
    StoreSome(hn::Mul(hn::Mul(grad, u), slope), i, n, dgate);
    StoreSome(hn::Mul(grad, hn::Mul(g, s)), i, n, dup);
  }
}

void AddProductRow(const float* a, const float* b, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const FloatVec sum = LoadSome(out, i, n);
    const FloatVec left = LoadSome(a, i, n);
    StoreSome(b == nullptr ? hn::Add(left, sum)
                           : hn::MulAdd(left, LoadSome(b, i, n), sum),
              i, n, out);
  }
}

void MultiplyRow(float factor, int64_t n, float* x) {
  const FloatVec factors = hn::Set(FloatTag(), factor);
  for (int64_t i = 0; i < n; i += kLanes) {
    StoreSome(hn::Mul(factors, LoadSome(x, i, n)), i, n, x);
  }
}

void SoftmaxBackwardRow(const float* p, float along, float scale, int64_t n,
                        float* dp) {
  const FloatTag d;
  const FloatVec alongs = hn::Set(d, along);
  const FloatVec scales = hn::Set(d, scale);
  for (int64_t i = 0; i < n; i += kLanes) {
    const FloatVec ds = hn::Mul(hn::Mul(LoadSome(p, i, n), scales),
                                hn::Sub(LoadSome(dp, i, n), alongs));
    StoreSome(ds, i, n, dp);
  }
}

float DotRow(const float* a, const float* b, int64_t n) {
  const FloatTag d;
  FloatVec sum = hn::Zero(d);
  for (int64_t i = 0; i < n; i += kLanes) {
    sum = hn::MulAdd(LoadSome(a, i, n), LoadSome(b, i, n), sum);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

}  // namespace

void FillTrainElementwiseOfTarget(TrainKernels* kernels) {
  kernels->rms_norm_backward = RmsNormBackwardRow;
  kernels->silu_mul_backward = SiluMulBackwardRow;
  kernels->add_product = AddProductRow;
  kernels->multiply = MultiplyRow;
  kernels->softmax_backward = SoftmaxBackwardRow;
  kernels->dot = DotRow;
}

}  // namespace HWY_NAMESPACE
}  // namespace lorikeet::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorikeet::cpu {
namespace {

// Columns of a task of a sum over tokens: four cache lines.
constexpr int64_t kTaskColumns = 64;

uint32_t Low(uint64_t x) { return static_cast<uint32_t>(x); }
uint32_t High(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

// Factors of elements [begin, begin + n): 0 or `keep`.
void DropoutFactors(const DropoutKey& key, uint64_t begin, int64_t n,
                    float keep, float* factors) {
  const float limit = key.rate * 0x1.0p24f;
  std::array<uint32_t, 4> words{};
  for (int64_t j = 0; j < n; ++j) {
    const uint64_t element = begin + static_cast<uint64_t>(j);
    if (j == 0 || element % 4 == 0) {
      words = Philox({Low(element / 4), High(element / 4), Low(key.stream),
                      High(key.stream)},
                     {Low(key.seed), High(key.seed)});
    }
    factors[j] = static_cast<float>(words[element % 4] >> 8) < limit ? 0 : keep;
  }
}

}  // namespace

HWY_EXPORT(FillTrainElementwiseOfTarget);

void FillTrainElementwise(TrainKernels& kernels) {
  HWY_DYNAMIC_DISPATCH(FillTrainElementwiseOfTarget)(&kernels);
}

void CpuTrainOps::Clear(Tensor x, Stream&) {
  for (int64_t i = 0; i < x.rows; ++i) std::fill_n(x.f32(i), x.cols, 0.0f);
}

void CpuTrainOps::Copy(ConstTensor x, Tensor y, Stream&) {
  for (int64_t i = 0; i < x.rows; ++i) std::copy_n(x.f32(i), x.cols, y.f32(i));
}

void CpuTrainOps::RmsNormBackward(ConstTensor x, const float* weight, float eps,
                                  ConstTensor dy, bool accumulate, Tensor dx,
                                  float* dweight, Stream&) {
  CHECK_EQ(x.cols, dy.cols);
  CHECK_EQ(x.cols, dx.cols);
  if (dweight != nullptr) {
    // dy * x / rms, a column's sum in the order of the rows.
    std::vector<float> factors(static_cast<size_t>(x.rows));
    for (int64_t i = 0; i < x.rows; ++i) {
      const float mean =
          train_.dot(x.f32(i), x.f32(i), x.cols) / static_cast<float>(x.cols);
      factors[static_cast<size_t>(i)] = 1.0f / std::sqrt(mean + eps);
    }
    const int64_t tasks = (x.cols + kTaskColumns - 1) / kTaskColumns;
    pool_.ParallelFor(tasks, 1, [&](int64_t begin, int64_t end, int worker) {
      const int64_t first = begin * kTaskColumns;
      const int64_t n = std::min(end * kTaskColumns, x.cols) - first;
      float* scaled = scratch(worker, n);
      for (int64_t i = 0; i < x.rows; ++i) {
        std::copy_n(x.f32(i) + first, n, scaled);
        train_.multiply(factors[static_cast<size_t>(i)], n, scaled);
        train_.add_product(scaled, dy.f32(i) + first, n, dweight + first);
      }
    });
  }
  ForRows(x.rows, x.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      train_.rms_norm_backward(x.f32(i), weight, eps, dy.f32(i), x.cols,
                               accumulate, dx.f32(i));
    }
  });
}

void CpuTrainOps::SiluMulBackward(ConstTensor gate, ConstTensor up,
                                  ConstTensor dy, Tensor dgate, Tensor dup,
                                  Stream&) {
  CHECK_EQ(gate.cols, dy.cols);
  ForRows(gate.rows, gate.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      train_.silu_mul_backward(gate.f32(i), up.f32(i), dy.f32(i), gate.cols,
                               dgate.f32(i), dup.f32(i));
    }
  });
}

void CpuTrainOps::EmbedBackward(std::span<const Token> tokens, ConstTensor dy,
                                Tensor dtable, Stream&) {
  CHECK_EQ(static_cast<int64_t>(tokens.size()), dy.rows);
  CHECK_EQ(dy.cols, dtable.cols);
  const int64_t tasks = (dy.cols + kTaskColumns - 1) / kTaskColumns;
  pool_.ParallelFor(tasks, 1, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kTaskColumns;
    const int64_t n = std::min(end * kTaskColumns, dy.cols) - first;
    for (int64_t i = 0; i < dy.rows; ++i) {
      kernels_.add(dy.f32(i) + first, n,
                   dtable.f32(tokens[static_cast<size_t>(i)]) + first);
    }
  });
}

void CpuTrainOps::AddColumnDots(ConstTensor a, ConstTensor b, float* out,
                                Stream&) {
  CHECK(b.data == nullptr || (a.rows == b.rows && a.cols == b.cols));
  const int64_t tasks = (a.cols + kTaskColumns - 1) / kTaskColumns;
  pool_.ParallelFor(tasks, 1, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kTaskColumns;
    const int64_t n = std::min(end * kTaskColumns, a.cols) - first;
    for (int64_t i = 0; i < a.rows; ++i) {
      const float* other = b.data == nullptr ? nullptr : b.f32(i) + first;
      train_.add_product(a.f32(i) + first, other, n, out + first);
    }
  });
}

void CpuTrainOps::Dropout(ConstTensor x, const DropoutKey& key, bool accumulate,
                          Tensor y, Stream&) {
  CHECK(key.rate >= 0 && key.rate < 1);
  const float keep = 1.0f / (1.0f - key.rate);
  ForRows(x.rows, x.cols, [&](int64_t begin, int64_t end, int worker) {
    float* factors = scratch(worker, x.cols);
    for (int64_t i = begin; i < end; ++i) {
      DropoutFactors(key, static_cast<uint64_t>(i * x.cols), x.cols, keep,
                     factors);
      const float* in = x.f32(i);
      float* out = y.f32(i);
      if (accumulate) {
        train_.add_product(in, factors, x.cols, out);
        continue;
      }
      for (int64_t j = 0; j < x.cols; ++j) out[j] = in[j] * factors[j];
    }
  });
}

}  // namespace lorikeet::cpu
#endif  // HWY_ONCE
