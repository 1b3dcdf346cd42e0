#include "base/check.h"
#include "kernels/reference/operators.h"
#include "kernels/reference/train/operators.h"
#include "kernels/reference/train/train_ops.h"

namespace lorikeet {

std::unique_ptr<TrainOps> NewReferenceTrainOps() {
  return std::make_unique<reference::ReferenceTrainOps>();
}

namespace reference {

double At(const TrainMatrix& w, int64_t row, int64_t col) {
  if (w.packed == nullptr) return w.plain.At(row, col);
  return static_cast<const Weight&>(*w.packed).matrix.At(row, col);
}

void ReferenceTrainOps::Linear(ConstTensor x, const TrainMatrix& w,
                               const float* bias, Tensor y, Stream&) {
  CHECK_EQ(x.cols, w.in_dim());
  CHECK_EQ(y.cols, w.out_dim());
  for (int64_t i = 0; i < x.rows; ++i) {
    for (int64_t n = 0; n < y.cols; ++n) {
      double sum = bias == nullptr ? 0 : bias[n];
      for (int64_t k = 0; k < x.cols; ++k) sum += x.At(i, k) * At(w, n, k);
      Put(sum, false, y.f32(i) + n);
    }
  }
}

void ReferenceTrainOps::LinearBackward(ConstTensor dy, const TrainMatrix& w,
                                       bool accumulate, Tensor dx, Stream&) {
  CHECK_EQ(dy.cols, w.out_dim());
  CHECK_EQ(dx.cols, w.in_dim());
  for (int64_t i = 0; i < dy.rows; ++i) {
    for (int64_t k = 0; k < dx.cols; ++k) {
      double sum = 0;
      for (int64_t n = 0; n < dy.cols; ++n) sum += dy.At(i, n) * At(w, n, k);
      Put(sum, accumulate, dx.f32(i) + k);
    }
  }
}

void ReferenceTrainOps::Product(ProductForm form, float alpha, ConstTensor a,
                                ConstTensor b, bool accumulate, Tensor c,
                                Stream&) {
  const bool a_transposed = form == ProductForm::kTN;
  const bool b_transposed = form == ProductForm::kNT;
  const int64_t inner = a_transposed ? a.rows : a.cols;
  CHECK_EQ(c.rows, a_transposed ? a.cols : a.rows);
  CHECK_EQ(c.cols, b_transposed ? b.rows : b.cols);
  CHECK_EQ(inner, b_transposed ? b.cols : b.rows);
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < c.cols; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < inner; ++k) {
        sum += static_cast<double>(a_transposed ? a.At(k, i) : a.At(i, k)) *
               (b_transposed ? b.At(j, k) : b.At(k, j));
      }
      Put(alpha * sum, accumulate, c.f32(i) + j);
    }
  }
}

void ReferenceTrainOps::MergedRowSquares(const TrainMatrix& w, ConstTensor a,
                                         ConstTensor b, float scale,
                                         std::span<double> out, Stream&) {
  for (int64_t j = 0; j < w.out_dim(); ++j) {
    double sum = 0;
    for (int64_t k = 0; k < w.in_dim(); ++k) {
      double delta = 0;
      for (int64_t r = 0; r < a.rows; ++r) delta += b.At(j, r) * a.At(r, k);
      const double value = At(w, j, k) + scale * delta;
      sum += value * value;
    }
    out[static_cast<size_t>(j)] = sum;
  }
}

void ReferenceTrainOps::EmbedBackward(std::span<const Token> tokens,
                                      ConstTensor dy, Tensor dtable, Stream&) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    float* row = dtable.f32(tokens[i]);
    for (int64_t j = 0; j < dy.cols; ++j) {
      row[j] += dy.At(static_cast<int64_t>(i), j);
    }
  }
}

void ReferenceTrainOps::AddColumnDots(ConstTensor a, ConstTensor b, float* out,
                                      Stream&) {
  for (int64_t j = 0; j < a.cols; ++j) {
    double sum = out[j];
    for (int64_t t = 0; t < a.rows; ++t) {
      sum += static_cast<double>(a.At(t, j)) *
             (b.data == nullptr ? 1.0f : b.At(t, j));
    }
    out[j] = static_cast<float>(sum);
  }
}

}  // namespace reference
}  // namespace lorikeet
