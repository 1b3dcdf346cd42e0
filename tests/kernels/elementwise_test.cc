#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

class ElementwiseTest : public ::testing::TestWithParam<std::string> {
 protected:
  CpuBackend cpu_{GetParam(), 2};
  std::unique_ptr<Stream> stream_ = cpu_->NewStream();
  std::unique_ptr<Ops> reference_ = NewReferenceOps();
  Rng rng_{9};
};

TEST_P(ElementwiseTest, SiluMulMatchesReference) {
  for (const int64_t rows : kOddSizes) {
    for (const int64_t cols : kOddSizes) {
      const Matrix gate = Matrix::Random(rng_, rows, cols, DType::kF32, 8, 3);
      const Matrix up = Matrix::Random(rng_, rows, cols);
      Matrix expected(rows, cols);
      Matrix actual(rows, cols);
      reference_->SiluMul(gate.view(), up.view(), expected.view(), *stream_);
      cpu_->SiluMul(gate.view(), up.view(), actual.view(), *stream_);
      ExpectNear(actual, expected, [&](int64_t i, int64_t j) {
        return 8 * kEps * std::abs(expected.At(i, j)) + 1e-36;
      });
    }
  }
}

TEST_P(ElementwiseTest, SiluOfExtremesIsFinite) {
  Matrix gate(1, 6);
  const float values[] = {-1e30f, -200, -88, 88, 200, 1e30f};
  std::copy_n(values, 6, gate.row(0));
  Matrix up(1, 6);
  up.Fill(1);
  Matrix y(1, 6);
  cpu_->SiluMul(gate.view(), up.view(), y.view(), *stream_);
  EXPECT_NEAR(y.At(0, 0), 0, 1e-7);
  EXPECT_NEAR(y.At(0, 1), 0, 1e-35);
  EXPECT_NEAR(y.At(0, 2), 0, 1e-35);
  EXPECT_EQ(y.At(0, 3), 88);
  EXPECT_EQ(y.At(0, 4), 200);
  EXPECT_EQ(y.At(0, 5), 1e30f);
}

TEST_P(ElementwiseTest, SiluMulMayOverwriteGateOrUp) {
  const Matrix gate = Matrix::Random(rng_, 5, 77);
  const Matrix up = Matrix::Random(rng_, 5, 77);
  Matrix y(5, 77);
  cpu_->SiluMul(gate.view(), up.view(), y.view(), *stream_);
  const Matrix over_gate = gate.Clone();
  cpu_->SiluMul(over_gate.view(), up.view(), over_gate.view(), *stream_);
  ExpectSameBits(over_gate, y);
  const Matrix over_up = up.Clone();
  cpu_->SiluMul(gate.view(), over_up.view(), over_up.view(), *stream_);
  ExpectSameBits(over_up, y);
}

TEST_P(ElementwiseTest, ResidualAddIsTheSum) {
  const Matrix x = Matrix::Random(rng_, 31, 1003);
  const Matrix y = Matrix::Random(rng_, 31, 1003);
  const Matrix sum = y.Clone();
  cpu_->ResidualAdd(x.view(), sum.view(), *stream_);
  for (int64_t i = 0; i < 31; ++i) {
    for (int64_t j = 0; j < 1003; ++j) {
      ASSERT_EQ(sum.row(i)[j], x.row(i)[j] + y.row(i)[j]);
    }
  }
}

TEST_P(ElementwiseTest, ScaleColumnsMatchesReference) {
  for (const int64_t rows : kOddSizes) {
    for (const int64_t cols : kOddSizes) {
      const std::vector<float> gain = RandomFloats(rng_, cols);
      const std::vector<float> bias = RandomFloats(rng_, cols);
      for (const float* b : {bias.data(), static_cast<const float*>(nullptr)}) {
        const Matrix y = Matrix::Random(rng_, rows, cols, DType::kF32, 1, 3);
        const Matrix expected = y.Clone();
        const Matrix actual = y.Clone();
        reference_->ScaleColumns(gain.data(), b, expected.view(), *stream_);
        cpu_->ScaleColumns(gain.data(), b, actual.view(), *stream_);
        ExpectNear(actual, expected, [&](int64_t i, int64_t j) {
          const double product = std::abs(y.At(i, j) * gain[size_t(j)]);
          return 2 * kEps * (product + std::abs(bias[size_t(j)]));
        });
      }
    }
  }
}

TEST_P(ElementwiseTest, AnElementOfScaleColumnsKeepsItsBitsInAnyPlace) {
  const std::vector<float> gain(100, 0.3f);
  const std::vector<float> bias(100, 1.7f);
  const Matrix y(1, 100);
  for (int64_t j = 0; j < 100; ++j) y.row(0)[j] = 1 / 3.0f;
  cpu_->ScaleColumns(gain.data(), bias.data(), y.view(), *stream_);
  for (int64_t j = 1; j < 100; ++j) ASSERT_EQ(y.row(0)[j], y.row(0)[0]) << j;
}

TEST_P(ElementwiseTest, ScatterColumnsWritesTheNamedOnesOnly) {
  const Matrix x = Matrix::Random(rng_, 7, 3, DType::kF32, 1, 2);
  const Matrix before = Matrix::Random(rng_, 7, 31);
  const Matrix y = before.Clone();
  const std::vector<int32_t> cols = {0, 17, 30};
  cpu_->ScatterColumns(x.view(), cols, y.view(), *stream_);
  for (int64_t i = 0; i < 7; ++i) {
    for (int32_t j = 0; j < 31; ++j) {
      const auto it = std::ranges::find(cols, j);
      ASSERT_EQ(y.row(i)[j], it == cols.end() ? before.row(i)[j]
                                              : x.row(i)[it - cols.begin()]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, ElementwiseTest,
                         ::testing::ValuesIn(BackendNames()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
