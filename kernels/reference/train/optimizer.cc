#include <cmath>

#include "base/check.h"
#include "kernels/reference/train/operators.h"

namespace lorikeet::reference {

void ReferenceTrainOps::CrossEntropy(Tensor logits,
                                     std::span<const Token> targets,
                                     float gradient_scale,
                                     std::span<TokenLoss> out, Stream&) {
  for (int64_t i = 0; i < logits.rows; ++i) {
    float* row = logits.f32(i);
    const Token target = targets[static_cast<size_t>(i)];
    int64_t best = 0;
    for (int64_t j = 1; j < logits.cols; ++j) {
      if (row[j] > row[best]) best = j;
    }
    const double max = static_cast<double>(row[best]);
    double sum = 0;
    for (int64_t j = 0; j < logits.cols; ++j) {
      sum += std::exp(static_cast<double>(row[j]) - max);
    }
    out[static_cast<size_t>(i)] = {
        max + std::log(sum) - static_cast<double>(row[target]), best == target};
    if (gradient_scale == 0) continue;
    for (int64_t j = 0; j < logits.cols; ++j) {
      const double p = std::exp(static_cast<double>(row[j]) - max) / sum;
      row[j] = static_cast<float>(gradient_scale * (p - (j == target ? 1 : 0)));
    }
  }
}

void ReferenceTrainOps::SumOfSquares(std::span<const float> x, double* out,
                                     Stream&) {
  double sum = 0;
  for (const float value : x) sum += static_cast<double>(value) * value;
  *out = sum;
}

void ReferenceTrainOps::AdamW(const AdamWStep& step,
                              std::span<const float> gradient,
                              std::span<float> parameter, std::span<float> m,
                              std::span<float> v, Stream&) {
  const double lr = step.learning_rate;
  const double t = static_cast<double>(step.step);
  const double beta1 = step.beta1, beta2 = step.beta2;
  for (size_t i = 0; i < gradient.size(); ++i) {
    const double g = static_cast<double>(step.gradient_scale) * gradient[i];
    const double mi = beta1 * m[i] + (1 - beta1) * g;
    const double vi = beta2 * v[i] + (1 - beta2) * g * g;
    m[i] = static_cast<float>(mi);
    v[i] = static_cast<float>(vi);
    const double p = parameter[i] * (1 - lr * step.weight_decay);
    const double root =
        std::sqrt(vi) / std::sqrt(1 - std::pow(beta2, t)) + step.eps;
    parameter[i] =
        static_cast<float>(p - lr / (1 - std::pow(beta1, t)) * mi / root);
  }
}

}  // namespace lorikeet::reference
