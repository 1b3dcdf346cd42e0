#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/random.h"
#include "kernels/reference/train/operators.h"

namespace lorikeet::reference {
namespace {

uint32_t Low(uint64_t x) { return static_cast<uint32_t>(x); }
uint32_t High(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

bool IsDropped(const DropoutKey& key, uint64_t element) {
  const uint64_t counter = element / 4;
  const auto words =
      Philox({Low(counter), High(counter), Low(key.stream), High(key.stream)},
             {Low(key.seed), High(key.seed)});
  return static_cast<float>(words[element % 4] >> 8) < key.rate * 0x1.0p24f;
}

}  // namespace

void ReferenceTrainOps::Clear(Tensor x, Stream&) {
  for (int64_t i = 0; i < x.rows; ++i) std::fill_n(x.f32(i), x.cols, 0.0f);
}

void ReferenceTrainOps::Copy(ConstTensor x, Tensor y, Stream&) {
  for (int64_t i = 0; i < x.rows; ++i) std::copy_n(x.f32(i), x.cols, y.f32(i));
}

void ReferenceTrainOps::RmsNormBackward(ConstTensor x, const float* weight,
                                        float eps, ConstTensor dy,
                                        bool accumulate, Tensor dx,
                                        float* dweight, Stream&) {
  const double n = static_cast<double>(x.cols);
  for (int64_t i = 0; i < x.rows; ++i) {
    double squares = 0, along = 0;
    for (int64_t j = 0; j < x.cols; ++j) {
      const double value = static_cast<double>(x.At(i, j));
      squares += value * value;
      along += value * weight[j] * dy.At(i, j);
    }
    const double r = 1 / std::sqrt(squares / n + eps);
    for (int64_t j = 0; j < x.cols; ++j) {
      const double g = static_cast<double>(dy.At(i, j));
      const double value = static_cast<double>(x.At(i, j));
      if (dweight != nullptr) dweight[j] += static_cast<float>(g * value * r);
      Put(r * weight[j] * g - value * r * r * r * along / n, accumulate,
          dx.f32(i) + j);
    }
  }
}

void ReferenceTrainOps::SiluMulBackward(ConstTensor gate, ConstTensor up,
                                        ConstTensor dy, Tensor dgate,
                                        Tensor dup, Stream&) {
  for (int64_t i = 0; i < gate.rows; ++i) {
    for (int64_t j = 0; j < gate.cols; ++j) {
      const double g = static_cast<double>(gate.At(i, j));
      const double d = static_cast<double>(dy.At(i, j));
      const double u = static_cast<double>(up.At(i, j));
      const double s = 1 / (1 + std::exp(-g));
      dgate.f32(i)[j] = static_cast<float>(d * u * s * (1 + g * (1 - s)));
      dup.f32(i)[j] = static_cast<float>(d * g * s);
    }
  }
}

void ReferenceTrainOps::Dropout(ConstTensor x, const DropoutKey& key,
                                bool accumulate, Tensor y, Stream&) {
  const double keep = 1.0 / (1.0 - static_cast<double>(key.rate));
  for (int64_t i = 0; i < x.rows; ++i) {
    for (int64_t j = 0; j < x.cols; ++j) {
      const double value = IsDropped(key, static_cast<uint64_t>(i * x.cols + j))
                               ? 0
                               : x.At(i, j) * keep;
      Put(value, accumulate, y.f32(i) + j);
    }
  }
}

}  // namespace lorikeet::reference
