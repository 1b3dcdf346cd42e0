#include <gtest/gtest.h>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

class RmsNormTest : public ::testing::TestWithParam<std::string> {
 protected:
  CpuBackend cpu_{GetParam(), 2};
  std::unique_ptr<Stream> stream_ = cpu_->NewStream();
  std::unique_ptr<Ops> reference_ = NewReferenceOps();
  Rng rng_{5};
};

TEST_P(RmsNormTest, MatchesReference) {
  for (const int64_t rows : kOddSizes) {
    for (const int64_t cols : {1, 3, 7, 17, 31, 64, 100, 576, 1537}) {
      const Matrix x = Matrix::Random(rng_, rows, cols, DType::kF32, 3, 5);
      const std::vector<float> weight = RandomFloats(rng_, cols);
      Matrix expected(rows, cols);
      Matrix actual(rows, cols);
      reference_->RmsNorm(x.view(), weight.data(), 1e-5f, expected.view(),
                          *stream_);
      cpu_->RmsNorm(x.view(), weight.data(), 1e-5f, actual.view(), *stream_);
      // All squares are positive: their sum has a relative error of n eps.
      ExpectNear(actual, expected, [&](int64_t i, int64_t j) {
        return static_cast<double>(cols + 8) * kEps *
                   std::abs(expected.At(i, j)) +
               1e-37;
      });
    }
  }
}

TEST_P(RmsNormTest, InPlaceAndAloneGiveTheSameBits) {
  Matrix x = Matrix::Random(rng_, 40, 577);
  const std::vector<float> weight = RandomFloats(rng_, 577);
  Matrix all(40, 577);
  cpu_->RmsNorm(x.view(), weight.data(), 1e-6f, all.view(), *stream_);
  for (int64_t i = 0; i < 40; ++i) {
    const Tensor row = x.view().Rows(i, 1);
    cpu_->RmsNorm(row, weight.data(), 1e-6f, row, *stream_);
  }
  ExpectSameBits(x, all);
}

INSTANTIATE_TEST_SUITE_P(Targets, RmsNormTest,
                         ::testing::ValuesIn(BackendNames()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
