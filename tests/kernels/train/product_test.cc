#include "tests/kernels/train/train_backend.h"

namespace lorikeet::testing {
namespace {

class ProductTest : public TrainOpsTest {
 protected:
  static Matrix Absolute(const Matrix& m) {
    Matrix result(m.rows(), m.cols());
    for (int64_t i = 0; i < m.rows(); ++i) {
      for (int64_t j = 0; j < m.cols(); ++j) {
        result.row(i)[j] = static_cast<float>(std::fabs(m.At(i, j)));
      }
    }
    return result;
  }
};

TEST_P(ProductTest, EveryFormMatchesReference) {
  for (const ProductForm form :
       {ProductForm::kNN, ProductForm::kNT, ProductForm::kTN}) {
    for (const int64_t m : {1, 7, 31, 100}) {
      for (const int64_t n : {1, 4, 16, 17, 64, 100}) {
        for (const int64_t k : {1, 8, 33, 130}) {
          const bool at = form == ProductForm::kTN;
          const bool bt = form == ProductForm::kNT;
          const Matrix a =
              Matrix::Random(rng_, at ? k : m, at ? m : k, DType::kF32, 1, 3);
          const Matrix b =
              Matrix::Random(rng_, bt ? n : k, bt ? k : n, DType::kF32, 1, 2);
          Matrix actual = Matrix::Random(rng_, m, n, DType::kF32, 1, 5);
          Matrix expected = actual.Clone();
          Matrix bound(m, n);
          for (const bool accumulate : {false, true}) {
            backend_->Product(form, 0.5f, a.view(), b.view(), accumulate,
                              actual.view(), stream_);
            reference_->Product(form, 0.5f, a.view(), b.view(), accumulate,
                                expected.view(), stream_);
            reference_->Product(form, 1, Absolute(a).view(), Absolute(b).view(),
                                false, bound.view(), stream_);
            ExpectNear(actual, expected, [&](int64_t i, int64_t j) {
              return static_cast<double>(k + 2) * kEps *
                         (bound.At(i, j) + std::fabs(expected.At(i, j))) +
                     1e-37;
            });
          }
        }
      }
    }
  }
}

// Gradients of a low rank over the tokens of a batch.
TEST_P(ProductTest, LongSumsForFewResultsMatchReference) {
  for (const auto& [m, n] : {std::pair{8, 70}, std::pair{70, 8}}) {
    const Matrix a = Matrix::Random(rng_, 1000, m);
    const Matrix b = Matrix::Random(rng_, 1000, n);
    Matrix actual = Matrix::Random(rng_, m, n), expected = actual.Clone();
    backend_->Product(ProductForm::kTN, 2, a.view(), b.view(), true,
                      actual.view(), stream_);
    reference_->Product(ProductForm::kTN, 2, a.view(), b.view(), true,
                        expected.view(), stream_);
    ExpectClose(actual, expected, 1e-5);
  }
}

TEST_P(ProductTest, LinearOfAPlainMatrixMatchesReferenceWithBias) {
  const Matrix w = Matrix::Random(rng_, 67, 100, DType::kF32, 1, 3);
  const Matrix x = Matrix::Random(rng_, 19, 100);
  const Matrix dy = Matrix::Random(rng_, 19, 67);
  const std::vector<float> bias = RandomFloats(rng_, 67);
  Matrix y(19, 67), expected_y(19, 67), dx(19, 100), expected_dx(19, 100);
  for (TrainOps* ops : {&*backend_, reference_.get()}) {
    const bool is_oracle = ops == reference_.get();
    ops->Linear(x.view(), {nullptr, w.view()}, bias.data(),
                (is_oracle ? expected_y : y).view(), stream_);
    ops->LinearBackward(dy.view(), {nullptr, w.view()}, false,
                        (is_oracle ? expected_dx : dx).view(), stream_);
  }
  ExpectClose(y, expected_y, 1e-5);
  ExpectClose(dx, expected_dx, 1e-5);
}

TEST_P(ProductTest, LinearAndItsBackwardMatchReferenceForEveryWeightType) {
  for (const DType dtype : backend_.weight_dtypes()) {
    for (const int64_t out : {1, 17, 64, 100, 1060}) {
      for (const int64_t in : {3, 32, 63, 100}) {
        SCOPED_TRACE(::testing::Message()
                     << Name(dtype) << " " << out << " by " << in);
        const Matrix w = Matrix::Random(rng_, out, in, SourceOf(dtype));
        const auto packed = backend_.packer().PackWeight(w.view(), dtype);
        const auto oracle =
            reference_packer_->PackWeight(w.view(), backend_.StoredAs(dtype));
        const Matrix x = Matrix::Random(rng_, 19, in, DType::kF32, 1, 1);
        const Matrix dy = Matrix::Random(rng_, 19, out, DType::kF32, 1, 1);
        const std::vector<float> bias = RandomFloats(rng_, out);
        Matrix y(19, out), expected_y(19, out);
        Matrix dx = Matrix::Random(rng_, 19, in), expected_dx = dx.Clone();
        backend_->Linear(x.view(), {packed.get(), {}}, bias.data(), y.view(),
                         stream_);
        reference_->Linear(AsMultiplied(x).view(), {oracle.get(), {}},
                           bias.data(), expected_y.view(), stream_);
        ExpectClose(y, expected_y, 1e-5);
        backend_->LinearBackward(dy.view(), {packed.get(), {}}, true, dx.view(),
                                 stream_);
        reference_->LinearBackward(AsMultiplied(dy).view(), {oracle.get(), {}},
                                   true, expected_dx.view(), stream_);
        ExpectClose(dx, expected_dx, 1e-5);
      }
    }
  }
}

TEST_P(ProductTest, APlainMatrixGivesTheBitsOfItsPackedForm) {
  SKIP_UNLESS_CPU("a GPU keeps bf16");
  for (const int64_t out : {31, 96, 1060}) {
    for (const int64_t in : {7, 64, 100}) {
      const Matrix w = Matrix::Random(rng_, out, in, DType::kF32, 1, 3);
      const auto packed = backend_.packer().PackWeight(w.view(), DType::kF32);
      const Matrix x = Matrix::Random(rng_, 30, in);
      const Matrix dy = Matrix::Random(rng_, 30, out);
      Matrix y(30, out), y_plain(30, out), dx(30, in), dx_plain(30, in);
      backend_->Linear(x.view(), {packed.get(), {}}, nullptr, y.view(),
                       stream_);
      backend_->Linear(x.view(), {nullptr, w.view()}, nullptr, y_plain.view(),
                       stream_);
      ExpectSameBits(y_plain, y);
      backend_->LinearBackward(dy.view(), {packed.get(), {}}, false, dx.view(),
                               stream_);
      backend_->LinearBackward(dy.view(), {nullptr, w.view()}, false,
                               dx_plain.view(), stream_);
      ExpectSameBits(dx_plain, dx);
    }
  }
}

TEST_P(ProductTest, LinearGivesTheBitsOfServing) {
  for (const DType dtype : kDTypes) {
    const Matrix w = Matrix::Random(rng_, 100, 67, dtype);
    const auto packed = backend_.packer().PackWeight(w.view(), dtype);
    const Matrix x = Matrix::Random(rng_, 21, 67);
    const std::vector<float> bias = RandomFloats(rng_, 100);
    Matrix trained(21, 100), served(21, 100);
    backend_->Linear(x.view(), {packed.get(), {}}, bias.data(), trained.view(),
                     stream_);
    const auto serving = backend_.packer().NewStream();
    backend_.packer().Gemm(x.view(), *packed, bias.data(), served.view(),
                           *serving);
    ExpectSameBits(trained, served);
  }
}

TEST_P(ProductTest, ComputeDtypeBf16RoundsInputsAndNothingElse) {
  SKIP_UNLESS_CPU("a GPU rounds always");
  ThreadPool probe_pool(1);
  if (!CreateCpuTrainOps(probe_pool, {GetParam(), DType::kBF16}).ok()) {
    GTEST_SKIP() << "skipped: no bf16 dot products";
  }
  TrainBackend two(GetParam(), 2, DType::kBF16);
  TrainBackend one(GetParam(), 1, DType::kBF16);
  for (const int64_t out : {1, 17, 64, 100, 2080}) {
    for (const int64_t in : {3, 32, 63, 100}) {
      SCOPED_TRACE(::testing::Message() << out << " by " << in);
      const Matrix w = Matrix::Random(rng_, out, in, DType::kBF16);
      const auto packed = two.packer().PackWeight(w.view(), DType::kBF16);
      const auto oracle = reference_packer_->PackWeight(w.view(), DType::kBF16);
      const std::vector<float> bias = RandomFloats(rng_, out);
      const Matrix x = Matrix::Random(rng_, 19, in, DType::kF32, 1, 1);
      Matrix y(19, out), y_one(19, out), expected_y(19, out);
      two->Linear(x.view(), {packed.get(), {}}, bias.data(), y.view(), stream_);
      one->Linear(x.view(), {packed.get(), {}}, bias.data(), y_one.view(),
                  stream_);
      reference_->Linear(RoundedToBf16(x).view(), {oracle.get(), {}},
                         bias.data(), expected_y.view(), stream_);
      ExpectClose(y, expected_y, 1e-5);
      ExpectSameBits(y, y_one);
      const Matrix dy = Matrix::Random(rng_, 19, out, DType::kF32, 1, 1);
      for (const bool accumulate : {false, true}) {
        Matrix dx = Matrix::Random(rng_, 19, in), expected_dx = dx.Clone();
        two->LinearBackward(dy.view(), {packed.get(), {}}, accumulate,
                            dx.view(), stream_);
        reference_->LinearBackward(RoundedToBf16(dy).view(), {oracle.get(), {}},
                                   accumulate, expected_dx.view(), stream_);
        ExpectClose(dx, expected_dx, 1e-5);
      }
    }
  }
}

TEST_P(ProductTest, ThreadsDoNotChangeBits) {
  SKIP_UNLESS_CPU("only the CPU's backend has threads");
  TrainBackend one(GetParam(), 1);
  const Matrix w = Matrix::Random(rng_, 300, 200, DType::kBF16);
  const auto packed = backend_.packer().PackWeight(w.view(), DType::kBF16);
  const Matrix dy = Matrix::Random(rng_, 130, 300);
  const Matrix x = Matrix::Random(rng_, 130, 200);
  Matrix dx(130, 200), dx_one(130, 200), dw(300, 200), dw_one(300, 200);
  backend_->LinearBackward(dy.view(), {packed.get(), {}}, false, dx.view(),
                           stream_);
  one->LinearBackward(dy.view(), {packed.get(), {}}, false, dx_one.view(),
                      stream_);
  ExpectSameBits(dx, dx_one);
  backend_->Product(ProductForm::kTN, 1, dy.view(), x.view(), false, dw.view(),
                    stream_);
  one->Product(ProductForm::kTN, 1, dy.view(), x.view(), false, dw_one.view(),
               stream_);
  ExpectSameBits(dw, dw_one);
}

TEST_P(ProductTest, MergedRowSquaresAreThoseOfTheMergedMatrix) {
  const Matrix w = Matrix::Random(rng_, 50, 70, DType::kBF16);
  const auto packed = backend_.packer().PackWeight(w.view(), DType::kBF16);
  const auto oracle = reference_packer_->PackWeight(w.view(), DType::kBF16);
  const Matrix a = Matrix::Random(rng_, 4, 70);
  const Matrix b = Matrix::Random(rng_, 50, 4);
  std::vector<double> actual(50), expected(50);
  backend_->MergedRowSquares({packed.get(), {}}, a.view(), b.view(), 2, actual,
                             stream_);
  reference_->MergedRowSquares({oracle.get(), {}}, a.view(), b.view(), 2,
                               expected, stream_);
  const auto expect_near = [&] {
    for (size_t i = 0; i < 50; ++i) {
      EXPECT_NEAR(actual[i], expected[i], 1e-5 * expected[i]);
    }
  };
  expect_near();
  const Matrix plain = Matrix::Random(rng_, 50, 70);
  backend_->MergedRowSquares({nullptr, plain.view()}, a.view(), b.view(), 2,
                             actual, stream_);
  reference_->MergedRowSquares({nullptr, plain.view()}, a.view(), b.view(), 2,
                               expected, stream_);
  expect_near();
}

INSTANTIATE_TRAIN_TARGETS(ProductTest);

}  // namespace
}  // namespace lorikeet::testing
