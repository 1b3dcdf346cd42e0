#include "adapters/int8_error.h"

#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/random.h"
#include "kernels/lora_int8.h"

namespace lorikeet {
namespace {

constexpr int kInputs = 32;

using Vector = std::vector<double>;

void Widen(ConstTensor m, Tensor out) {
  for (int64_t i = 0; i < m.rows; ++i) {
    for (int64_t k = 0; k < m.cols; ++k) out.f32(i)[k] = m.At(i, k);
  }
}

// A matrix in f32.
struct Matrix {
  Matrix(ConstTensor m, void (*fill)(ConstTensor, Tensor))
      : bytes(m.rows * m.cols * SizeBytes(DType::kF32)),
        view(Tensor::F32(bytes.as<float>(), m.rows, m.cols)) {
    fill(m, view);
  }
  Buffer bytes;
  Tensor view;
};

Vector Multiply(const Matrix& m, const Vector& x) {
  Vector y(static_cast<size_t>(m.view.rows));
  for (int64_t i = 0; i < m.view.rows; ++i) {
    const float* row = m.view.f32(i);
    double sum = 0;
    for (size_t k = 0; k < x.size(); ++k) {
      sum += static_cast<double>(row[k]) * x[k];
    }
    y[static_cast<size_t>(i)] = sum;
  }
  return y;
}

struct Squares {
  double error = 0;   // |E x|^2
  double update = 0;  // |B A x|^2

  double relative() const { return error > 0 ? std::sqrt(error / update) : 0; }
};

Squares Measure(const LoraModule& module, Rng& rng) {
  const Matrix a(module.a, Widen), b(module.b, Widen);
  const Matrix a8(module.a, RoundLoraA), b8(module.b, RoundLoraB);
  Squares squares;
  Vector x(static_cast<size_t>(module.a.cols));
  for (int i = 0; i < kInputs; ++i) {
    for (double& value : x) value = rng.Normal();
    const Vector exact = Multiply(b, Multiply(a, x));
    const Vector rounded = Multiply(b8, Multiply(a8, x));
    for (size_t n = 0; n < exact.size(); ++n) {
      const double difference = rounded[n] - exact[n];
      squares.error += difference * difference;
      squares.update += exact[n] * exact[n];
    }
  }
  return squares;
}

}  // namespace

Int8Error MeasureInt8Error(const AdapterWeights& weights) {
  Rng rng(1);
  Int8Error result;
  Squares all;
  for (const LoraModule& module : weights.modules) {
    const Squares squares = Measure(module, rng);
    const double scale = module.scaling * module.scaling;
    all.error += scale * squares.error;
    all.update += scale * squares.update;
    if (squares.relative() > result.worst) {
      result.worst = squares.relative();
      result.worst_module = module.name;
    }
  }
  result.overall = all.relative();
  return result;
}

std::string DescribeInt8Error(const Int8Error& error) {
  std::string text = absl::StrFormat(
      "A and B in 8 bits change the update by %.2g %%", 100 * error.overall);
  if (!error.worst_module.empty()) {
    absl::StrAppendFormat(&text, ", that of %s by %.2g %%", error.worst_module,
                          100 * error.worst);
  }
  return text;
}

}  // namespace lorikeet
