// Log-likelihood and its gradient, row by row, threads take rows. A row of
// logits is read four times: largest, NaN, exp and sum, scaling.

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/cpu/train/operators.h"

namespace lorikeet::cpu {

void CpuTrainOps::CrossEntropy(Tensor logits, std::span<const Token> targets,
                               float gradient_scale, std::span<TokenLoss> out,
                               Stream&) {
  CHECK_EQ(static_cast<int64_t>(targets.size()), logits.rows);
  CHECK_EQ(targets.size(), out.size());
  ForRows(logits.rows, logits.cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = logits.f32(i);
      const Token target = targets[static_cast<size_t>(i)];
      float largest;
      int64_t best;
      kernels_.arg_max(row, logits.cols, &largest, &best);
      const double above = static_cast<double>(row[target]) - largest;
      // The vector exp and the search take a NaN for nothing: 0 or NaN.
      const float squares = train_.dot(row, row, logits.cols);
      const double nan = std::isnan(squares) ? squares : 0;
      const bool wants_gradient = gradient_scale != 0;
      const double sum = kernels_.exp_sum(row, largest, 1, logits.cols,
                                          wants_gradient ? row : nullptr);
      out[static_cast<size_t>(i)] = {std::log(sum) - above + nan,
                                     best == target};
      if (!wants_gradient) continue;
      train_.multiply(static_cast<float>(gradient_scale / sum), logits.cols,
                      row);
      row[target] -= gradient_scale;
    }
  });
}

}  // namespace lorikeet::cpu
