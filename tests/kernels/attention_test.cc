#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

constexpr int64_t kBlock = 32;
constexpr int64_t kKvHeads = 2;
constexpr int64_t kHeads = 6;

// A cache whose blocks are scattered, with NaN wherever nothing was written.
class Cache {
 public:
  Cache(int64_t sequences, int64_t length, int64_t head_dim, DType dtype,
        Rng& rng)
      : head_dim_(head_dim), dtype_(dtype) {
    const int64_t per_sequence = (length + kBlock - 1) / kBlock + 1;
    const int64_t blocks = sequences * per_sequence;
    const int64_t stride = kKvHeads * kBlock * head_dim;
    k_ = Matrix(blocks, stride, dtype);
    v_ = Matrix(blocks, stride, dtype);
    for (int64_t i = 0; i < blocks * stride; ++i) {
      const float nan = std::numeric_limits<float>::quiet_NaN();
      StoreElement(dtype, k_.view().data, i, nan);
      StoreElement(dtype, v_.view().data, i, nan);
    }
    std::vector<int32_t> order(static_cast<size_t>(blocks));
    std::iota(order.begin(), order.end(), 0);
    for (size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[rng.Below(i)]);
    }
    for (int64_t s = 0; s < sequences; ++s) {
      const auto begin = order.begin() + s * per_sequence;
      tables_.emplace_back(begin, begin + per_sequence);
    }
  }

  PagedKvView view() const {
    return {k_.view().data,
            v_.view().data,
            dtype_,
            kBlock,
            kKvHeads * kBlock * head_dim_,
            kKvHeads,
            head_dim_};
  }
  const std::vector<int32_t>& table(int64_t s) const {
    return tables_[static_cast<size_t>(s)];
  }

  // Random K and V at positions [0, length) of sequence s.
  void Fill(Ops& ops, int64_t s, int64_t length, Rng& rng) {
    const Matrix k = Matrix::Random(rng, length, kKvHeads * head_dim_);
    const Matrix v = Matrix::Random(rng, length, kKvHeads * head_dim_);
    const SequenceRows rows = {0, static_cast<int32_t>(length), 0, table(s)};
    HostStream stream;
    ops.KvAppend(k.view(), v.view(), view(), {&rows, 1}, stream);
  }

 private:
  const int64_t head_dim_;
  const DType dtype_;
  Matrix k_, v_;
  std::vector<std::vector<int32_t>> tables_;
};

class AttentionTest : public ::testing::TestWithParam<std::string> {
 protected:
  AttentionTest() : cpu_(GetParam(), 2) {}

  Matrix Run(Ops& ops, const Matrix& q, const Cache& cache,
             std::span<const SequenceRows> rows, int64_t window) {
    Matrix y(q.rows(), q.cols());
    ops.PagedAttention(q.view(), cache.view(), rows, 0.3f, window, y.view(),
                       stream_);
    return y;
  }

  CpuBackend cpu_;
  HostStream stream_;
  std::unique_ptr<Ops> reference_ = NewReferenceOps();
  Rng rng_{5};
};

TEST_P(AttentionTest, MatchesReferenceOverLengthsHeadsAndWindows) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t head_dim : {2, 8, 32, 64, 80}) {
      for (const int64_t length : {1, 31, 33, 64, 257, 530}) {
        for (const int64_t window : {0, 16, 100}) {
          const int64_t rows = std::min<int64_t>(length, 5);
          Cache cache(1, length, head_dim, dtype, rng_);
          cache.Fill(*cpu_, 0, length, rng_);
          const Matrix q = Matrix::Random(rng_, rows, kHeads * head_dim);
          const SequenceRows part = {0, static_cast<int32_t>(rows),
                                     static_cast<int32_t>(length - rows),
                                     cache.table(0)};
          const Matrix expected =
              Run(*reference_, q, cache, {&part, 1}, window);
          const Matrix actual = Run(*cpu_, q, cache, {&part, 1}, window);
          // Scores have an error of some eps * |q||k|; their exponentials
          // carry it over as a relative one, and |v| is below about 5.
          const double bound = 5 * kEps *
                               (16 + 4 * static_cast<double>(head_dim) +
                                static_cast<double>(length));
          ExpectNear(actual, expected, [&](int64_t, int64_t) { return bound; });
          if (HasFailure()) {
            FAIL() << Name(dtype) << " head_dim " << head_dim << " length "
                   << length << " window " << window;
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, ARowKeepsItsBitsInEveryChunkBatchAndThreadCount) {
  constexpr int64_t kLength = 300, kHeadDim = 16, kWidth = kHeads * kHeadDim;
  for (const int64_t window : {0, 40}) {
    Cache cache(2, kLength, kHeadDim, DType::kF32, rng_);
    cache.Fill(*cpu_, 0, kLength, rng_);
    cache.Fill(*cpu_, 1, kLength, rng_);
    const Matrix q = Matrix::Random(rng_, kLength, kWidth);
    const SequenceRows whole = {0, kLength, 0, cache.table(0)};
    const Matrix expected = Run(*cpu_, q, cache, {&whole, 1}, window);
    for (const int threads : {1, 2, 3}) {
      CpuBackend other(GetParam(), threads);
      for (int64_t begin = 0; begin < kLength;) {
        const int64_t count = std::min<int64_t>(
            kLength - begin, 1 + static_cast<int64_t>(rng_.Below(70)));
        // A neighbour in the same step.
        Matrix both(count + 3, kWidth);
        std::memcpy(both.row(3), q.row(begin),
                    static_cast<size_t>(count * kWidth) * sizeof(float));
        const SequenceRows parts[] = {
            {0, 3, 200, cache.table(1)},
            {3, static_cast<int32_t>(count + 3), static_cast<int32_t>(begin),
             cache.table(0)}};
        const Matrix y = Run(*other, both, cache, parts, window);
        for (int64_t i = 0; i < count; ++i) {
          ASSERT_EQ(std::memcmp(y.row(3 + i), expected.row(begin + i),
                                kWidth * sizeof(float)),
                    0)
              << "position " << begin + i << ", " << threads << " threads";
        }
        begin += count;
      }
    }
  }
}

TEST_P(AttentionTest, WhatLiesBehindTheSequenceIsNeverRead) {
  // Cache fills everything that was not written with NaN.
  Cache cache(1, 40, 8, DType::kF32, rng_);
  cache.Fill(*cpu_, 0, 37, rng_);
  const Matrix q = Matrix::Random(rng_, 1, kHeads * 8);
  const SequenceRows part = {0, 1, 36, cache.table(0)};
  const Matrix y = Run(*cpu_, q, cache, {&part, 1}, 0);
  for (int64_t j = 0; j < y.cols(); ++j) EXPECT_FALSE(std::isnan(y.row(0)[j]));
}

INSTANTIATE_TEST_SUITE_P(Targets, AttentionTest,
                         ::testing::ValuesIn(SupportedCpuTargets()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
