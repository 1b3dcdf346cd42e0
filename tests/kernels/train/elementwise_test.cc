#include "tests/kernels/train/train_backend.h"

namespace lorikeet::testing {
namespace {

using ElementwiseTest = TrainOpsTest;

TEST_P(ElementwiseTest, ClearAndCopyDoNotTouchWhatLiesBetweenRows) {
  const Matrix x = Matrix::Random(rng_, 5, 37, DType::kF32, 1, 3);
  Matrix y = Matrix::Random(rng_, 5, 37, DType::kF32, 1, 2);
  const float between = y.row(0)[37];
  backend_->Copy(x.view(), y.view(), stream_);
  ExpectSameBits(y, x);
  backend_->Clear(y.view(), stream_);
  ExpectSameBits(y, Matrix(5, 37));
  EXPECT_EQ(y.row(0)[37], between);
}

TEST_P(ElementwiseTest, RmsNormBackwardMatchesReference) {
  for (const int64_t cols : {1, 7, 64, 100, 577}) {
    const Matrix x = Matrix::Random(rng_, 33, cols, DType::kF32, 2, 3);
    const Matrix dy = Matrix::Random(rng_, 33, cols);
    const std::vector<float> weight = RandomFloats(rng_, cols);
    for (const bool accumulate : {false, true}) {
      Matrix actual = Matrix::Random(rng_, 33, cols);
      Matrix expected = actual.Clone();
      Matrix dw(1, cols), expected_dw(1, cols);
      backend_->RmsNormBackward(x.view(), weight.data(), 1e-5f, dy.view(),
                                accumulate, actual.view(), dw.row(0), stream_);
      reference_->RmsNormBackward(x.view(), weight.data(), 1e-5f, dy.view(),
                                  accumulate, expected.view(),
                                  expected_dw.row(0), stream_);
      ExpectClose(actual, expected, 1e-5);
      ExpectClose(dw, expected_dw, 1e-5);
    }
  }
}

TEST_P(ElementwiseTest, GradientsMayBeWrittenWhereTheyCameFrom) {
  const Matrix x = Matrix::Random(rng_, 9, 101),
               up = Matrix::Random(rng_, 9, 101);
  const Matrix dy = Matrix::Random(rng_, 9, 101);
  const std::vector<float> weight = RandomFloats(rng_, 101);
  Matrix apart(9, 101), other(9, 101), dw(1, 101), dw_inside(1, 101);
  Matrix inside = dy.Clone();
  backend_->RmsNormBackward(x.view(), weight.data(), 1e-5f, dy.view(), false,
                            apart.view(), dw.row(0), stream_);
  backend_->RmsNormBackward(x.view(), weight.data(), 1e-5f, inside.view(),
                            false, inside.view(), dw_inside.row(0), stream_);
  ExpectSameBits(inside, apart);
  ExpectSameBits(dw_inside, dw);
  for (const bool is_gate : {false, true}) {
    Matrix dgate(9, 101), dup(9, 101);
    backend_->SiluMulBackward(x.view(), up.view(), dy.view(), dgate.view(),
                              dup.view(), stream_);
    inside = dy.Clone();
    backend_->SiluMulBackward(x.view(), up.view(), inside.view(),
                              (is_gate ? inside : other).view(),
                              (is_gate ? other : inside).view(), stream_);
    ExpectSameBits(is_gate ? inside : other, dgate);
    ExpectSameBits(is_gate ? other : inside, dup);
  }
  const DropoutKey key{5, 9, 0.25f};
  backend_->Dropout(x.view(), key, false, apart.view(), stream_);
  inside = x.Clone();
  backend_->Dropout(inside.view(), key, false, inside.view(), stream_);
  ExpectSameBits(inside, apart);
}

TEST_P(ElementwiseTest, SiluMulBackwardMatchesReferenceAlsoFarFromZero) {
  for (const double size : {1.0, 30.0}) {
    const Matrix gate = Matrix::Random(rng_, 9, 101, DType::kF32, size);
    const Matrix up = Matrix::Random(rng_, 9, 101);
    const Matrix dy = Matrix::Random(rng_, 9, 101);
    Matrix dgate(9, 101), dup(9, 101), dgate2(9, 101), dup2(9, 101);
    backend_->SiluMulBackward(gate.view(), up.view(), dy.view(), dgate.view(),
                              dup.view(), stream_);
    reference_->SiluMulBackward(gate.view(), up.view(), dy.view(),
                                dgate2.view(), dup2.view(), stream_);
    ExpectClose(dgate, dgate2, 2e-6);
    ExpectClose(dup, dup2, 2e-6);
  }
}

TEST_P(ElementwiseTest, SumsOverTokensMatchReference) {
  const Matrix a = Matrix::Random(rng_, 200, 131);
  const Matrix b = Matrix::Random(rng_, 200, 131);
  Matrix actual = Matrix::Random(rng_, 1, 131);
  Matrix expected = actual.Clone();
  backend_->AddColumnDots(a.view(), b.view(), actual.row(0), stream_);
  backend_->AddColumnDots(a.view(), {}, actual.row(0), stream_);
  reference_->AddColumnDots(a.view(), b.view(), expected.row(0), stream_);
  reference_->AddColumnDots(a.view(), {}, expected.row(0), stream_);
  ExpectClose(actual, expected, 1e-5);
}

TEST_P(ElementwiseTest, EmbedBackwardAddsRowsOfTheSameToken) {
  const Matrix dy = Matrix::Random(rng_, 5, 70);
  const std::vector<Token> tokens = {3, 0, 3, 2, 3};
  Matrix actual(4, 70), expected(4, 70);
  backend_->EmbedBackward(tokens, dy.view(), actual.view(), stream_);
  reference_->EmbedBackward(tokens, dy.view(), expected.view(), stream_);
  ExpectSameBits(actual, expected);
  for (int64_t j = 0; j < 70; ++j) EXPECT_EQ(actual.At(1, j), 0);
}

TEST_P(ElementwiseTest, DropoutDropsTheElementsOfTheReference) {
  const Matrix x = Matrix::Random(rng_, 40, 131);
  const DropoutKey key{5, 9, 0.25f};
  Matrix actual(40, 131), expected(40, 131);
  backend_->Dropout(x.view(), key, false, actual.view(), stream_);
  reference_->Dropout(x.view(), key, false, expected.view(), stream_);
  ExpectClose(actual, expected, 1e-6);
  backend_->Dropout(x.view(), key, true, actual.view(), stream_);
  reference_->Dropout(x.view(), key, true, expected.view(), stream_);
  ExpectClose(actual, expected, 1e-6);
  int64_t dropped = 0;
  for (int64_t i = 0; i < 40; ++i) {
    for (int64_t j = 0; j < 131; ++j) dropped += actual.At(i, j) == 0 ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(dropped) / (40 * 131), 0.25, 0.03);
}

TEST_P(ElementwiseTest, CrossEntropyMatchesReferenceAndTellsTheLargest) {
  Matrix actual = Matrix::Random(rng_, 11, 333, DType::kF32, 4);
  const std::vector<Token> targets = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 332};
  actual.row(2)[2] = 50;
  Matrix expected = actual.Clone();
  std::vector<TokenLoss> loss(11), expected_loss(11);
  backend_->CrossEntropy(actual.view(), targets, 0.125f, loss, stream_);
  reference_->CrossEntropy(expected.view(), targets, 0.125f, expected_loss,
                           stream_);
  ExpectClose(actual, expected, 2e-6);
  for (size_t i = 0; i < 11; ++i) {
    EXPECT_NEAR(loss[i].loss, expected_loss[i].loss,
                1e-5 * (1 + expected_loss[i].loss));
    EXPECT_EQ(loss[i].is_largest, expected_loss[i].is_largest);
  }
  EXPECT_TRUE(loss[2].is_largest);
}

TEST_P(ElementwiseTest, CrossEntropyOfNanIsNan) {
  Matrix logits = Matrix::Random(rng_, 2, 100);
  logits.row(1)[40] = std::nanf("");
  std::vector<TokenLoss> loss(2);
  backend_->CrossEntropy(logits.view(), std::vector<Token>{1, 2}, 0, loss,
                         stream_);
  EXPECT_TRUE(std::isfinite(loss[0].loss));
  EXPECT_TRUE(std::isnan(loss[1].loss));
}

TEST_P(ElementwiseTest, AdamWMatchesReferenceOverSteps) {
  constexpr int64_t kCount = 9000;
  Matrix p = Matrix::Random(rng_, 1, kCount), m(1, kCount), v(1, kCount);
  Matrix p2 = p.Clone(), m2(1, kCount), v2(1, kCount);
  const auto span = [](const Matrix& x) {
    return std::span<float>(x.row(0), static_cast<size_t>(x.cols()));
  };
  for (int64_t step = 1; step <= 5; ++step) {
    const Matrix g = Matrix::Random(rng_, 1, kCount);
    const AdamWStep args{0.01f, 0.9f, 0.999f, 1e-8f, 0.1f, 0.5f, step};
    backend_->AdamW(args, span(g), span(p), span(m), span(v), stream_);
    reference_->AdamW(args, span(g), span(p2), span(m2), span(v2), stream_);
    double squares = 0, expected_squares = 0;
    backend_->SumOfSquares(span(g), &squares, stream_);
    reference_->SumOfSquares(span(g), &expected_squares, stream_);
    EXPECT_NEAR(squares, expected_squares, 1e-9 * kCount);
  }
  ExpectClose(p, p2, 1e-6);
  ExpectClose(v, v2, 1e-6);
}

INSTANTIATE_TRAIN_TARGETS(ElementwiseTest);

}  // namespace
}  // namespace lorikeet::testing
