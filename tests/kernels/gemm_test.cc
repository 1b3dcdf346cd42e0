#include <gtest/gtest.h>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

class GemmTest : public ::testing::TestWithParam<std::string> {
 protected:
  GemmTest() : cpu_(GetParam(), 2), stream_(cpu_->NewStream()) {}

  Matrix Run(ConstTensor x, const PackedWeight& w, const float* bias) {
    Matrix y(x.rows, w.out_dim());
    cpu_->Gemm(x, w, bias, y.view(), *stream_);
    return y;
  }

  CpuBackend cpu_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Ops> reference_ = NewReferenceOps();
  Rng rng_{11};
};

TEST_P(GemmTest, MatchesReferenceWithinTheBoundOfADotProduct) {
  for (const DType dtype : kDTypes) {
    for (const int64_t rows : kOddSizes) {
      for (const int64_t in : kOddSizes) {
        for (const int64_t out : kOddSizes) {
          SCOPED_TRACE(::testing::Message() << Name(dtype) << " " << rows << "x"
                                            << in << "x" << out);
          const Matrix x =
              Matrix::Random(rng_, rows, in, DType::kF32, 1, rows % 4);
          const Matrix w = Matrix::Random(rng_, out, in, dtype);
          const std::vector<float> bias = RandomFloats(rng_, out);
          Matrix expected(rows, out);
          reference_->Gemm(x.view(), *reference_->PackWeight(w.view(), dtype),
                           bias.data(), expected.view(), *stream_);
          const auto packed = cpu_->PackWeight(w.view(), dtype);
          const Matrix actual = Run(x.view(), *packed, bias.data());
          ExpectNear(actual, expected, [&](int64_t i, int64_t j) {
            return DotBound(x.view(), i, w.view(), j, cpu_.operand_eps()) +
                   2 * kEps * std::abs(expected.At(i, j)) +
                   2 * kEps * std::abs(bias[static_cast<size_t>(j)]);
          });
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST_P(GemmTest, ARowKeepsItsBitsInEveryBatch) {
  if (!cpu_.is_batch_invariant()) GTEST_SKIP() << "not promised";
  for (const DType dtype : kDTypes) {
    const Matrix x = Matrix::Random(rng_, 61, 600);
    const Matrix w = Matrix::Random(rng_, 330, 600, dtype);
    const auto packed = cpu_->PackWeight(w.view(), dtype);
    const Matrix all = Run(x.view(), *packed, nullptr);
    for (int64_t count = 1; count <= 61; ++count) {
      const int64_t begin =
          static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(62 - count)));
      const Matrix some = Run(x.view().Rows(begin, count), *packed, nullptr);
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(std::memcmp(some.row(i), all.row(begin + i), 330 * 4), 0)
            << count << " rows, row " << i;
      }
    }
  }
}

TEST_P(GemmTest, AnyNumberOfThreadsGivesTheSameBits) {
  const Matrix x = Matrix::Random(rng_, 9, 257);
  const Matrix w = Matrix::Random(rng_, 1000, 257, DType::kBF16);
  const auto packed = cpu_->PackWeight(w.view(), DType::kBF16);
  const Matrix two = Run(x.view(), *packed, nullptr);
  for (const int threads : {1, 3}) {
    CpuBackend other(GetParam(), threads);
    Matrix y(9, 1000);
    other->Gemm(x.view(), *packed, nullptr, y.view(), *stream_);
    ExpectSameBits(y, two);
  }
}

// The contract: one chain over ascending k, in registers or in memory.
TEST_P(GemmTest, EachOutputIsOneChainOverAscendingK) {
  if (GetParam() == "SSE4") {
    GTEST_SKIP() << "this target has no fused multiply-add";
  }
  if (!cpu_.is_batch_invariant()) GTEST_SKIP() << "not promised";
  const Matrix x = Matrix::Random(rng_, 5, 300);
  const Matrix w = Matrix::Random(rng_, 70, 300, DType::kBF16);
  const Matrix y =
      Run(x.view(), *cpu_->PackWeight(w.view(), DType::kBF16), nullptr);
  Matrix chain(5, 70);
  for (int64_t i = 0; i < 5; ++i) {
    for (int64_t n = 0; n < 70; ++n) {
      float sum = 0;
      for (int64_t k = 0; k < 300; ++k) {
        sum = std::fma(x.row(i)[k], static_cast<float>(w.At(n, k)), sum);
      }
      chain.row(i)[n] = sum;
    }
  }
  ExpectSameBits(y, chain);
}

TEST_P(GemmTest, NanStaysInItsRow) {
  Matrix x = Matrix::Random(rng_, 7, 64);
  const Matrix w = Matrix::Random(rng_, 40, 64);
  const auto packed = cpu_->PackWeight(w.view(), DType::kF32);
  const Matrix before = Run(x.view(), *packed, nullptr);
  x.row(3)[10] = std::nanf("");
  const Matrix after = Run(x.view(), *packed, nullptr);
  for (int64_t i = 0; i < 7; ++i) {
    for (int64_t j = 0; j < 40; ++j) {
      if (i == 3) {
        EXPECT_TRUE(std::isnan(after.At(i, j)));
      } else {
        EXPECT_EQ(after.At(i, j), before.At(i, j));
      }
    }
  }
}

TEST_P(GemmTest, ZeroRowsIsANoOp) {
  const Matrix w = Matrix::Random(rng_, 40, 64);
  const auto packed = cpu_->PackWeight(w.view(), DType::kF32);
  cpu_->Gemm(Tensor{nullptr, DType::kF32, 0, 64, 64}, *packed, nullptr,
             Tensor{nullptr, DType::kF32, 0, 40, 40}, *stream_);
}

TEST_P(GemmTest, WritesNothingBesideItsColumns) {
  const Matrix x = Matrix::Random(rng_, 5, 33);
  const Matrix w = Matrix::Random(rng_, 37, 33);
  Matrix y(5, 100);
  y.Fill(42);
  cpu_->Gemm(x.view(), *cpu_->PackWeight(w.view(), DType::kF32), nullptr,
             y.view().Cols(10, 37), *stream_);
  for (int64_t i = 0; i < 5; ++i) {
    for (int64_t j = 0; j < 100; ++j) {
      if (j < 10 || j >= 47) {
        EXPECT_EQ(y.At(i, j), 42);
      }
    }
  }
}

TEST_P(GemmTest, PackingNarrowsToTheNearestEven) {
  const Matrix w = Matrix::Random(rng_, 35, 20);
  Matrix narrow(35, 20, DType::kBF16);
  for (int64_t i = 0; i < 35 * 20; ++i) {
    StoreElement(DType::kBF16, narrow.view().data, i,
                 LoadElement(DType::kF32, w.view().data, i));
  }
  const Matrix x = Matrix::Random(rng_, 2, 20);
  const auto from_wide = cpu_->PackWeight(w.view(), DType::kBF16);
  const auto from_narrow = cpu_->PackWeight(narrow.view(), DType::kBF16);
  EXPECT_EQ(from_wide->dtype(), DType::kBF16);
  // The CPU packs groups of 32 rows, CUDA pads rows to 16 bytes.
  EXPECT_EQ(from_wide->size_bytes(),
            GetParam() == kCudaOnHost ? 35 * 24 * 2 : 64 * 20 * 2);
  ExpectSameBits(Run(x.view(), *from_wide, nullptr),
                 Run(x.view(), *from_narrow, nullptr));
}

INSTANTIATE_TEST_SUITE_P(Targets, GemmTest, ::testing::ValuesIn(BackendNames()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
