#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/block_int8.h"
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

  void ExpectNanStaysInItsRow(DType dtype) {
    Matrix x = Matrix::Random(rng_, 7, 64);
    const Matrix w = Matrix::Random(rng_, 40, 64);
    const auto packed = cpu_->PackWeight(w.view(), dtype);
    const Matrix before = Run(x.view(), *packed, nullptr);
    for (const float bad :
         {std::nanf(""), std::numeric_limits<float>::infinity()}) {
      x.row(3)[10] = bad;
      const Matrix after = Run(x.view(), *packed, nullptr);
      for (int64_t i = 0; i < 7; ++i) {
        for (int64_t j = 0; j < 40; ++j) {
          if (i == 3) {
            EXPECT_FALSE(std::isfinite(after.At(i, j))) << Name(dtype);
          } else {
            EXPECT_EQ(after.At(i, j), before.At(i, j)) << Name(dtype);
          }
        }
      }
    }
  }

  CpuBackend cpu_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Ops> reference_ = NewReferenceOps();
  Rng rng_{11};
};

TEST_P(GemmTest, MatchesReferenceWithinTheBoundOfADotProduct) {
  for (const DType dtype : cpu_.weight_dtypes()) {
    for (const int64_t rows : kOddSizes) {
      for (const int64_t in : kOddSizes) {
        for (const int64_t out : kOddSizes) {
          SCOPED_TRACE(::testing::Message() << Name(dtype) << " " << rows << "x"
                                            << in << "x" << out);
          const Matrix x =
              Matrix::Random(rng_, rows, in, DType::kF32, 1, rows % 4);
          const Matrix w = Matrix::Random(rng_, out, in, SourceOf(dtype));
          const std::vector<float> bias = RandomFloats(rng_, out);
          Matrix expected(rows, out);
          reference_->Gemm(x.view(), *reference_->PackWeight(w.view(), dtype),
                           bias.data(), expected.view(), *stream_);
          const auto packed = cpu_->PackWeight(w.view(), dtype);
          const Matrix actual = Run(x.view(), *packed, bias.data());
          ExpectNear(actual, expected, [&](int64_t i, int64_t j) {
            // int8: terms may be half a step of the largest number larger.
            const double wider = dtype == DType::kI8 ? 1.25 : 1;
            return wider *
                       DotBound(x.view(), i, w.view(), j, cpu_.operand_eps()) +
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
  const bool is_slow = GetParam() == kCudaOnHostInvariant;
  for (const DType dtype : cpu_.weight_dtypes()) {
    if (is_slow && dtype != DType::kBF16) continue;
    const Matrix x = Matrix::Random(rng_, 61, 600);
    const Matrix w = Matrix::Random(rng_, 330, 600, SourceOf(dtype));
    const auto packed = cpu_->PackWeight(w.view(), dtype);
    const Matrix all = Run(x.view(), *packed, nullptr);
    for (int64_t count = 1; count <= 61; count += is_slow ? 11 : 1) {
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
  if (!cpu_.is_cpu()) GTEST_SKIP() << "the CPU's contract";
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
  for (const DType dtype : cpu_.weight_dtypes()) ExpectNanStaysInItsRow(dtype);
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
  EXPECT_EQ(from_wide->size_bytes(), cpu_.is_cpu() ? 64 * 20 * 2 : 35 * 24 * 2);
  ExpectSameBits(Run(x.view(), *from_wide, nullptr),
                 Run(x.view(), *from_narrow, nullptr));
}

TEST_P(GemmTest, RestoredWeightsGiveTheSameBits) {
  if (cpu_->PackedLayout().empty()) GTEST_SKIP() << "not offered";
  for (const DType dtype : cpu_.weight_dtypes()) {
    const Matrix x = Matrix::Random(rng_, 3, 65);
    const Matrix w = Matrix::Random(rng_, 50, 65, SourceOf(dtype));
    const auto packed = cpu_->PackWeight(w.view(), dtype);
    const auto bytes = packed->packed_bytes();
    const auto restored = cpu_->RestoreWeight(50, 65, dtype, bytes);
    ASSERT_NE(restored, nullptr);
    EXPECT_EQ(restored->size_bytes(), packed->size_bytes());
    ExpectSameBits(Run(x.view(), *restored, nullptr),
                   Run(x.view(), *packed, nullptr));
    EXPECT_EQ(cpu_->RestoreWeight(50, 65, dtype, bytes.substr(1)), nullptr);
    EXPECT_EQ(cpu_->RestoreWeight(90, 65, dtype, bytes), nullptr);
  }
}

// The contract of block_int8.h: integers inside a block, one chain over blocks.
TEST_P(GemmTest, EachInt8OutputIsOneChainOverBlocks) {
  if (GetParam() == "SSE4") GTEST_SKIP() << "no fused multiply-add";
  if (!cpu_.has_int8()) GTEST_SKIP() << "not offered";
  const Matrix x = Matrix::Random(rng_, 5, 300);
  const Matrix w = Matrix::Random(rng_, 70, 300);
  const Matrix y =
      Run(x.view(), *cpu_->PackWeight(w.view(), DType::kI8), nullptr);
  Matrix chain(5, 70);
  for (int64_t i = 0; i < 5; ++i) {
    for (int64_t n = 0; n < 70; ++n) {
      float sum = 0;
      for (int64_t k = 0; k < 300; k += kInt8Block) {
        const int64_t count = std::min(kInt8Block, 300 - k);
        int8_t qx[kInt8Block], qw[kInt8Block];
        const float sx = QuantizeActivationBlock(x.row(i) + k, count, qx);
        const float sw =
            FloatFromF16(QuantizeWeightBlock(w.row(n) + k, count, qw));
        int32_t dot = 0;
        for (int64_t j = 0; j < kInt8Block; ++j) dot += qx[j] * qw[j];
        sum = std::fma(static_cast<float>(dot), sw * sx, sum);
      }
      chain.row(i)[n] = sum;
    }
  }
  ExpectSameBits(y, chain);
}

// bf16 inputs: the hardware's dot product against two fused multiply-adds, the
// odd column first (no number here is small enough to be flushed to zero).
TEST_P(GemmTest, ComputeDTypeBf16IsAChainOfPairsOverRoundedX) {
  if (!cpu_.is_cpu()) GTEST_SKIP() << "an option of the CPU";
  ThreadPool pool(2);
  auto ops = CreateCpuOps(pool, {GetParam(), DType::kBF16});
  if (!ops.ok()) {
    EXPECT_EQ(ops.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(ops.status().message(), ::testing::HasSubstr(GetParam()));
    GTEST_SKIP() << ops.status().message();
  }
  for (const int64_t in : {1, 2, 31, 300}) {
    for (const int64_t rows : {1, 2, 5, 13, 61}) {
      const Matrix x = Matrix::Random(rng_, rows, in);
      const Matrix w = Matrix::Random(rng_, 170, in, DType::kBF16);
      Matrix y(rows, 170);
      (*ops)->Gemm(x.view(), *(*ops)->PackWeight(w.view(), DType::kBF16),
                   nullptr, y.view(), *stream_);
      Matrix chain(rows, 170);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t n = 0; n < 170; ++n) {
          const auto add = [&](int64_t k, float sum) {
            if (k >= in) return sum;
            const float rounded = FloatFromBF16(BF16FromFloat(x.row(i)[k]));
            return std::fma(rounded, static_cast<float>(w.At(n, k)), sum);
          };
          float sum = 0;
          for (int64_t k = 0; k < in; k += 2) sum = add(k, add(k + 1, sum));
          chain.row(i)[n] = sum;
        }
      }
      SCOPED_TRACE(::testing::Message() << rows << "x" << in);
      ExpectSameBits(y, chain);
    }
  }
}

TEST_P(GemmTest, ComputeDTypeBf16LeavesOtherWeightsExact) {
  if (!cpu_.is_cpu()) GTEST_SKIP() << "an option of the CPU";
  ThreadPool pool(2);
  auto ops = CreateCpuOps(pool, {GetParam(), DType::kBF16});
  if (!ops.ok()) GTEST_SKIP() << ops.status().message();
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kI8}) {
    const Matrix x = Matrix::Random(rng_, 9, 70);
    const Matrix w = Matrix::Random(rng_, 50, 70, SourceOf(dtype));
    const auto packed = cpu_->PackWeight(w.view(), dtype);
    Matrix y(9, 50);
    (*ops)->Gemm(x.view(), *packed, nullptr, y.view(), *stream_);
    ExpectSameBits(y, Run(x.view(), *packed, nullptr));
  }
}

TEST(CreateCpuOpsTest, NamesTheTargetsThatThereAre) {
  ThreadPool pool(1);
  const auto ops = CreateCpuOps(pool, {"AVX7", DType::kF32});
  EXPECT_EQ(ops.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(ops.status().message(), ::testing::HasSubstr("AVX7"));
  EXPECT_THAT(ops.status().message(),
              ::testing::HasSubstr(SupportedCpuTargets().back()));
}

TEST(CreateCpuOpsTest, ScalarIsTheSlowestTarget) {
  ThreadPool pool(1);
  EXPECT_EQ(CreateCpuOps(pool, {"scalar", DType::kF32}).value()->Target(),
            SupportedCpuTargets().back());
}

INSTANTIATE_TEST_SUITE_P(Targets, GemmTest,
                         ::testing::ValuesIn(BackendNamesOfProducts()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
