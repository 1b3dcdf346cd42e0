// Each backward operator of the reference against differences of its forward
// operator: for L = sum(dy * y), dL/dx is what changes when one x does.

#include <functional>

#include "tests/kernels/train/train_backend.h"

namespace lorikeet::testing {
namespace {

class GradientsTest : public ::testing::Test {
 protected:
  using Forward = std::function<Matrix()>;

  static double Loss(const Matrix& y, const Matrix& dy) {
    double sum = 0;
    for (int64_t i = 0; i < y.rows(); ++i) {
      for (int64_t j = 0; j < y.cols(); ++j) sum += y.At(i, j) * dy.At(i, j);
    }
    return sum;
  }

  // `gradient` is that of Loss(forward(), dy) by the elements of x.
  static void Check(const Matrix& x, const Matrix& gradient,
                    const Forward& forward, const Matrix& dy) {
    constexpr float kStep = 1.0f / 128;
    double largest = 0;
    for (int64_t i = 0; i < x.rows(); ++i) {
      for (int64_t j = 0; j < x.cols(); ++j) {
        largest = std::max(largest, std::fabs(gradient.At(i, j)));
      }
    }
    ASSERT_GT(largest, 0);
    for (int64_t i = 0; i < x.rows(); ++i) {
      for (int64_t j = 0; j < x.cols(); ++j) {
        const float before = x.row(i)[j];
        x.row(i)[j] = before + kStep;
        const double up = Loss(forward(), dy);
        x.row(i)[j] = before - kStep;
        const double down = Loss(forward(), dy);
        x.row(i)[j] = before;
        ASSERT_NEAR(gradient.At(i, j), (up - down) / (2 * kStep),
                    2e-3 * largest)
            << "(" << i << ", " << j << ")";
      }
    }
  }

  std::unique_ptr<Ops> ops_ = NewReferenceOps();
  std::unique_ptr<TrainOps> train_ = NewReferenceTrainOps();
  HostStream stream_;
  Rng rng_{3};
};

TEST_F(GradientsTest, OfALinear) {
  const Matrix w = Matrix::Random(rng_, 7, 5, DType::kBF16);
  const auto packed = ops_->PackWeight(w.view(), DType::kBF16);
  const Matrix x = Matrix::Random(rng_, 3, 5), dy = Matrix::Random(rng_, 3, 7);
  Matrix dx(3, 5);
  train_->LinearBackward(dy.view(), {packed.get(), {}}, false, dx.view(),
                         stream_);
  Check(
      x, dx,
      [&] {
        Matrix y(3, 7);
        train_->Linear(x.view(), {packed.get(), {}}, nullptr, y.view(),
                       stream_);
        return y;
      },
      dy);
}

TEST_F(GradientsTest, OfTheWeightsOfALinear) {
  const Matrix w = Matrix::Random(rng_, 7, 5);
  const Matrix x = Matrix::Random(rng_, 3, 5), dy = Matrix::Random(rng_, 3, 7);
  Matrix dw(7, 5);
  train_->Product(ProductForm::kTN, 1, dy.view(), x.view(), false, dw.view(),
                  stream_);
  Check(
      w, dw,
      [&] {
        Matrix y(3, 7);
        train_->Linear(x.view(), {nullptr, w.view()}, nullptr, y.view(),
                       stream_);
        return y;
      },
      dy);
}

TEST_F(GradientsTest, OfRmsNorm) {
  const Matrix x = Matrix::Random(rng_, 4, 9), dy = Matrix::Random(rng_, 4, 9);
  const Matrix weight = Matrix::Random(rng_, 1, 9);
  const auto forward = [&] {
    Matrix y(4, 9);
    ops_->RmsNorm(x.view(), weight.row(0), 1e-5f, y.view(), stream_);
    return y;
  };
  Matrix dx(4, 9), dweight(1, 9);
  train_->RmsNormBackward(x.view(), weight.row(0), 1e-5f, dy.view(), false,
                          dx.view(), dweight.row(0), stream_);
  Check(x, dx, forward, dy);
  Check(weight, dweight, forward, dy);
}

TEST_F(GradientsTest, OfSiluMul) {
  const Matrix gate = Matrix::Random(rng_, 3, 8, DType::kF32, 2);
  const Matrix up = Matrix::Random(rng_, 3, 8), dy = Matrix::Random(rng_, 3, 8);
  const auto forward = [&] {
    Matrix y(3, 8);
    ops_->SiluMul(gate.view(), up.view(), y.view(), stream_);
    return y;
  };
  Matrix dgate(3, 8), dup(3, 8);
  train_->SiluMulBackward(gate.view(), up.view(), dy.view(), dgate.view(),
                          dup.view(), stream_);
  Check(gate, dgate, forward, dy);
  Check(up, dup, forward, dy);
}

TEST_F(GradientsTest, OfRopeIsRotationBack) {
  const Matrix x = Matrix::Random(rng_, 3, 8), dy = Matrix::Random(rng_, 3, 8);
  Matrix cos(3, 2), sin(3, 2), back(3, 2);
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t j = 0; j < 2; ++j) {
      const float angle = static_cast<float>(i + 2 * j + 1);
      cos.row(i)[j] = std::cos(angle);
      sin.row(i)[j] = std::sin(angle);
      back.row(i)[j] = -sin.row(i)[j];
    }
  }
  Matrix dx = dy.Clone();
  ops_->Rope(dx.view(), 4, cos.row(0), back.row(0), stream_);
  Check(
      x, dx,
      [&] {
        Matrix y = x.Clone();
        ops_->Rope(y.view(), 4, cos.row(0), sin.row(0), stream_);
        return y;
      },
      dy);
}

TEST_F(GradientsTest, OfAttentionWithAWindowAndTwoSequences) {
  const AttentionHeads heads{4, 2, 6, 0.4f, 3};
  const std::vector<SequenceRows> sequences = {{0, 5, 0, {}}, {5, 8, 0, {}}};
  const Matrix q = Matrix::Random(rng_, 8, 24), k = Matrix::Random(rng_, 8, 12);
  const Matrix v = Matrix::Random(rng_, 8, 12);
  const Matrix dy = Matrix::Random(rng_, 8, 24);
  Matrix lse(8, 4);
  const auto forward = [&] {
    Matrix y(8, 24);
    train_->Attention(q.view(), k.view(), v.view(), sequences, heads, y.view(),
                      lse.view(), stream_);
    return y;
  };
  const Matrix y = forward();
  Matrix dq(8, 24), dk(8, 12), dv(8, 12);
  train_->AttentionBackward(q.view(), k.view(), v.view(), y.view(), lse.view(),
                            dy.view(), sequences, heads, dq.view(), dk.view(),
                            dv.view(), stream_);
  Check(q, dq, forward, dy);
  Check(k, dk, forward, dy);
  Check(v, dv, forward, dy);
}

TEST_F(GradientsTest, OfCrossEntropy) {
  const Matrix logits = Matrix::Random(rng_, 3, 11);
  const std::vector<Token> targets = {4, 0, 10};
  std::vector<TokenLoss> loss(3);
  Matrix gradient = logits.Clone();
  train_->CrossEntropy(gradient.view(), targets, 2, loss, stream_);
  Matrix twos(3, 1);
  twos.Fill(2);
  Check(
      logits, gradient,
      [&] {
        Matrix copy = logits.Clone(), y(3, 1);
        train_->CrossEntropy(copy.view(), targets, 0, loss, stream_);
        for (int64_t i = 0; i < 3; ++i) {
          y.row(i)[0] = static_cast<float>(loss[static_cast<size_t>(i)].loss);
        }
        return y;
      },
      twos);
}

}  // namespace
}  // namespace lorikeet::testing
