#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

constexpr int64_t kHeads = 3;
constexpr int64_t kHeadDim = 20;
constexpr int64_t kBlockSize = 32;

class KvCacheTest
    : public ::testing::TestWithParam<std::tuple<std::string, DType>> {
 protected:
  KvCacheTest()
      : cpu_(std::get<0>(GetParam()), 2),
        dtype_(std::get<1>(GetParam())),
        k_(4, kHeads * kBlockSize * kHeadDim, dtype_),
        v_(4, kHeads * kBlockSize * kHeadDim, dtype_) {
    kv_ = {k_.view().data,
           v_.view().data,
           dtype_,
           kBlockSize,
           kHeads * kBlockSize * kHeadDim,
           kHeads,
           kHeadDim};
  }

  CpuBackend cpu_;
  DType dtype_;
  Matrix k_;  // a row per block
  Matrix v_;
  PagedKvView kv_;
  std::unique_ptr<Stream> stream_ = cpu_->NewStream();
  Rng rng_{13};
};

TEST_P(KvCacheTest, AppendWritesThePositionsOfItsRowsAndNoOthers) {
  k_.Fill(99);
  v_.Fill(99);
  const Matrix k = Matrix::Random(rng_, 5, kHeads * kHeadDim);
  const Matrix v = Matrix::Random(rng_, 5, kHeads * kHeadDim);
  const std::vector<int32_t> table = {2, 0};
  // Positions 30 .. 33: the end of block 2 and the begin of block 0. Row 0
  // belongs to nobody.
  const std::vector<SequenceRows> sequences = {{1, 5, 30, table}};
  cpu_->KvAppend(k.view(), v.view(), kv_, sequences, *stream_);
  int64_t changed = 0;
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t j = 0; j < k_.cols(); ++j) changed += k_.At(i, j) != 99;
  }
  EXPECT_EQ(changed, 4 * kHeads * kHeadDim);
  for (int64_t row = 1; row < 5; ++row) {
    const int64_t position = 29 + row;
    const int64_t block = table[static_cast<size_t>(position / kBlockSize)];
    for (int64_t i = 0; i < kHeads * kHeadDim; ++i) {
      const int64_t place =
          (i / kHeadDim * kBlockSize + position % kBlockSize) * kHeadDim +
          i % kHeadDim;
      float stored[2];
      StoreElement(dtype_, stored, 0, k.row(row)[i]);
      ASSERT_EQ(k_.At(block, place), LoadElement(dtype_, stored, 0));
      StoreElement(dtype_, stored, 0, v.row(row)[i]);
      ASSERT_EQ(v_.At(block, place), LoadElement(dtype_, stored, 0));
    }
  }
}

TEST_P(KvCacheTest, CopyCopiesWholeBlocks) {
  k_ = Matrix::Random(rng_, 4, k_.cols(), dtype_);
  v_ = Matrix::Random(rng_, 4, v_.cols(), dtype_);
  kv_.k = k_.view().data;
  kv_.v = v_.view().data;
  const Matrix k = k_.Clone();
  const std::vector<std::pair<int32_t, int32_t>> blocks = {{1, 3}};
  cpu_->KvCopy(kv_, blocks, *stream_);
  for (int64_t j = 0; j < k_.cols(); ++j) {
    EXPECT_EQ(k_.At(3, j), k.At(1, j));
    EXPECT_EQ(k_.At(2, j), k.At(2, j));
    EXPECT_EQ(v_.At(3, j), v_.At(1, j));
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, KvCacheTest,
                         ::testing::Combine(::testing::ValuesIn(BackendNames()),
                                            ::testing::Values(DType::kF32,
                                                              DType::kBF16)),
                         [](const auto& p) {
                           return std::get<0>(p.param) + "_" +
                                  Name(std::get<1>(p.param));
                         });

}  // namespace
}  // namespace lorikeet::testing
