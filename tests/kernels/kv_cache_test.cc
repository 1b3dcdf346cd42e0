#include <gtest/gtest.h>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

constexpr int64_t kBlock = 32, kKvHeads = 3, kHeadDim = 8, kBlocks = 6;
constexpr int64_t kStride = kKvHeads * kBlock * kHeadDim;

struct Pool {
  explicit Pool(DType dtype)
      : k(kBlocks, kStride, dtype), v(kBlocks, kStride, dtype) {}
  PagedKvView view() const {
    return {k.view().data, v.view().data, k.view().dtype, kBlock,
            kStride,       kKvHeads,      kHeadDim};
  }
  Matrix k, v;
};

class KvCacheTest : public ::testing::TestWithParam<std::string> {
 protected:
  KvCacheTest() : cpu_(GetParam(), 2) {}
  CpuBackend cpu_;
  HostStream stream_;
  std::unique_ptr<Ops> reference_ = NewReferenceOps();
  Rng rng_{9};
};

void ExpectEqual(const Matrix& a, const Matrix& b) {
  for (int64_t i = 0; i < a.rows(); ++i) {
    for (int64_t j = 0; j < a.cols(); ++j) {
      ASSERT_EQ(a.At(i, j), b.At(i, j)) << i << ", " << j;
    }
  }
}

TEST_P(KvCacheTest, AppendPutsEachRowAtItsPosition) {
  const std::vector<int32_t> first = {4, 1}, second = {0, 5, 2};
  const SequenceRows rows[] = {{0, 7, 30, first}, {7, 8, 95, second}};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Matrix k = Matrix::Random(rng_, 8, kKvHeads * kHeadDim);
    const Matrix v = Matrix::Random(rng_, 8, kKvHeads * kHeadDim);
    Pool actual(dtype), expected(dtype);
    cpu_->KvAppend(k.view(), v.view(), actual.view(), rows, stream_);
    reference_->KvAppend(k.view(), v.view(), expected.view(), rows, stream_);
    ExpectEqual(actual.k, expected.k);
    ExpectEqual(actual.v, expected.v);
    // Position 31 of the first sequence: row 1, the last of block 4.
    for (int64_t h = 0; h < kKvHeads; ++h) {
      const float value = k.row(1)[h * kHeadDim];
      const float stored =
          dtype == DType::kF32 ? value : FloatFromBF16(BF16FromFloat(value));
      EXPECT_EQ(actual.k.At(4, (h * kBlock + 31) * kHeadDim), stored);
    }
  }
}

TEST_P(KvCacheTest, CopyMakesWholeBlocksEqual) {
  Pool pool(DType::kF32);
  for (int64_t i = 0; i < kBlocks; ++i) {
    for (int64_t j = 0; j < kStride; ++j) {
      pool.k.row(i)[j] = static_cast<float>(rng_.Normal());
      pool.v.row(i)[j] = static_cast<float>(rng_.Normal());
    }
  }
  const Pool& before = pool;
  const Matrix k = before.k.Clone(), v = before.v.Clone();
  const std::pair<int32_t, int32_t> copies[] = {{0, 3}, {5, 1}};
  cpu_->KvCopy(pool.view(), copies, stream_);
  for (int64_t j = 0; j < kStride; ++j) {
    EXPECT_EQ(pool.k.row(3)[j], k.row(0)[j]);
    EXPECT_EQ(pool.v.row(1)[j], v.row(5)[j]);
    EXPECT_EQ(pool.k.row(2)[j], k.row(2)[j]);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, KvCacheTest,
                         ::testing::ValuesIn(SupportedCpuTargets()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
