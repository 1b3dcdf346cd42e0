#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

struct Shape {
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t block_size;
};

// A cache of NaN, in which sequences of given lengths own shuffled blocks.
class Cache {
 public:
  Cache(Rng& rng, const Shape& shape, DType dtype,
        const std::vector<int64_t>& lengths)
      : shape_(shape), dtype_(dtype) {
    int32_t blocks = 1;  // block 0 belongs to nobody
    for (const int64_t length : lengths) {
      std::vector<int32_t>& table = tables_.emplace_back();
      const int64_t count =
          (length + shape.block_size - 1) / shape.block_size + 1;
      for (int64_t i = 0; i < count; ++i) table.push_back(blocks++);
      std::swap(table[0], table[table.size() / 2]);
    }
    const int64_t stride = shape.kv_heads * shape.block_size * shape.head_dim;
    k_ = Matrix(blocks, stride, dtype);
    v_ = Matrix(blocks, stride, dtype);
    k_.Fill(std::numeric_limits<float>::quiet_NaN());
    v_.Fill(std::numeric_limits<float>::quiet_NaN());
    const std::unique_ptr<Ops> reference = NewReferenceOps();
    const std::unique_ptr<Stream> stream = reference->NewStream();
    for (size_t s = 0; s < lengths.size(); ++s) {
      const int64_t cols = shape.kv_heads * shape.head_dim;
      const Matrix k = Matrix::Random(rng, lengths[s], cols);
      const Matrix v = Matrix::Random(rng, lengths[s], cols);
      const SequenceRows rows = {0, static_cast<int32_t>(lengths[s]), 0,
                                 tables_[s]};
      reference->KvAppend(k.view(), v.view(), view(), {&rows, 1}, *stream);
    }
  }

  PagedKvView view() const {
    return {k_.view().data, v_.view().data,  dtype_,         shape_.block_size,
            k_.cols(),      shape_.kv_heads, shape_.head_dim};
  }
  const std::vector<int32_t>& table(size_t s) const { return tables_[s]; }

 private:
  Shape shape_;
  DType dtype_;
  std::vector<std::vector<int32_t>> tables_;
  Matrix k_;
  Matrix v_;
};

class AttentionTest : public ::testing::TestWithParam<std::string> {
 protected:
  // An emulated device is.
  bool is_slow() const { return GetParam() == kCudaOnHost; }
  float Scale(const Shape& s) const {
    return 1 / std::sqrt(static_cast<float>(s.head_dim));
  }
  Matrix Run(Ops& ops, const Matrix& q, const Cache& cache,
             const std::vector<SequenceRows>& sequences, float scale,
             int64_t window) {
    Matrix y(q.rows(), q.cols());
    ops.PagedAttention(q.view(), cache.view(), sequences, scale, window,
                       y.view(), *stream_);
    return y;
  }

  CpuBackend cpu_{GetParam(), 2};
  std::unique_ptr<Stream> stream_ = cpu_->NewStream();
  std::unique_ptr<Ops> reference_ = NewReferenceOps();
  Rng rng_{17};
};

constexpr Shape kShapes[] = {{9, 3, 64, 32},
                             {4, 4, 20, 32},
                             {8, 1, 128, 64},
                             {3, 3, 7, 96},
                             {2, 1, 80, 32}};

TEST_P(AttentionTest, MatchesReference) {
  for (const Shape& shape : kShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const int64_t window : {0, 1, 33, 300}) {
        if (is_slow() && window == 1 && dtype == DType::kF32) continue;
        SCOPED_TRACE(::testing::Message()
                     << shape.heads << "/" << shape.kv_heads << " x "
                     << shape.head_dim << " window " << window);
        // The rows of the last chunk; an emulated device is slow.
        const int32_t last = is_slow() ? 5 : 60;
        const std::vector<int64_t> lengths = {1, 31, 33, 100, 540 + last};
        const Cache cache(rng_, shape, dtype, lengths);
        // A prompt, decodes, and a chunk in the middle of a prompt.
        const std::vector<SequenceRows> sequences = {
            {0, 1, 0, cache.table(0)},
            {1, 32, 0, cache.table(1)},
            {32, 33, 32, cache.table(2)},
            {33, 73, 60, cache.table(3)},
            {73, 73 + last, 540, cache.table(4)}};
        const Matrix q =
            Matrix::Random(rng_, 73 + last, shape.heads * shape.head_dim);
        const Matrix expected =
            Run(*reference_, q, cache, sequences, Scale(shape), window);
        const Matrix actual =
            Run(*cpu_, q, cache, sequences, Scale(shape), window);
        // Values are of size 1..5 and weights sum to 1; a score's error enters
        // its weight relatively: about head_dim eps |q||k| scale, and the sums
        // over keys add (tiles + 32) eps.
        double error =
            5 * kEps * (8 * static_cast<double>(shape.head_dim) + 64);
        if (dtype == DType::kBF16) {
          // Where q and the weights are rounded: a score is off by eps
          // sum |q||k| scale, with |q||k| of mean 0.64; a weight by as much
          // twice (its own, and the sum's), and by eps.
          const double score = cpu_.operand_eps() * 2 * Scale(shape) *
                               static_cast<double>(shape.head_dim);
          error += 5 * (2 * score + cpu_.operand_eps());
        }
        ExpectNear(actual, expected, [&](int64_t, int64_t) { return error; });
        if (HasFailure()) return;
      }
    }
  }
}

// Prefill in any chunks, decode alone, beside others, on any threads.
TEST_P(AttentionTest, ARowKeepsItsBitsInEveryChunkingAndBatch) {
  for (const Shape& shape : {kShapes[0], kShapes[1]}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const int64_t window : {0, 70}) {
        if (is_slow() && (dtype == DType::kF32 || window == 0)) continue;
        const int64_t length = is_slow() ? 270 : 700;
        const Cache cache(rng_, shape, dtype, {length, 300});
        const Matrix q =
            Matrix::Random(rng_, length, shape.heads * shape.head_dim);
        const float scale = Scale(shape);
        const Matrix whole =
            Run(*cpu_, q, cache,
                {{0, static_cast<int32_t>(length), 0, cache.table(0)}}, scale,
                window);
        for (const int threads :
             is_slow() ? std::vector<int>{1} : std::vector<int>{1, 2, 3}) {
          CpuBackend other(GetParam(), threads);
          for (int64_t begin = 0; begin < length;) {
            const int64_t count = std::min<int64_t>(
                length - begin,
                1 + static_cast<int64_t>(rng_.Below(begin % 3 == 0 ? 1 : 190)));
            // The chunk, then a decode row of another sequence.
            Matrix rows(count + 1, q.cols());
            for (int64_t i = 0; i < count; ++i) {
              std::copy_n(q.row(begin + i), q.cols(), rows.row(i));
            }
            std::copy_n(q.row(0), q.cols(), rows.row(count));
            const int32_t n = static_cast<int32_t>(count);
            const Matrix y =
                Run(*other, rows, cache,
                    {{0, n, static_cast<int32_t>(begin), cache.table(0)},
                     {n, n + 1, 299, cache.table(1)}},
                    scale, window);
            for (int64_t i = 0; i < count; ++i) {
              ASSERT_EQ(std::memcmp(y.row(i), whole.row(begin + i),
                                    static_cast<size_t>(q.cols()) * 4),
                        0)
                  << "row " << begin + i << " in a chunk of " << count << " at "
                  << begin << ", threads " << threads;
            }
            begin += count;
          }
        }
      }
    }
  }
}

TEST_P(AttentionTest, BlockSizeDoesNotChangeBits) {
  Matrix first;
  for (const int64_t block_size : {32, 64, 160}) {
    Rng rng(4);
    const Shape shape = {6, 2, 64, block_size};
    const Cache cache(rng, shape, DType::kF32, {290});
    const Matrix q = Matrix::Random(rng, 3, 6 * 64);
    Matrix y = Run(*cpu_, q, cache, {{0, 3, 287, cache.table(0)}}, 0.125f, 0);
    if (block_size == 32) {
      first = std::move(y);
    } else {
      ExpectSameBits(y, first);
    }
  }
}

// Rejected speculation or a reused block leaves numbers past the end.
TEST_P(AttentionTest, WhatLiesBeyondARowsPositionHasNoInfluence) {
  const Shape shape = kShapes[0];
  const Cache cache(rng_, shape, DType::kF32, {200});
  const Matrix q = Matrix::Random(rng_, 1, 9 * 64);
  const Matrix before =
      Run(*cpu_, q, cache, {{0, 1, 100, cache.table(0)}}, 0.125f, 0);
  const PagedKvView kv = cache.view();
  for (const int64_t position : {101, 127, 128, 199}) {
    Matrix nan(1, 3 * 64);
    nan.Fill(std::numeric_limits<float>::quiet_NaN());
    const SequenceRows row = {0, 1, static_cast<int32_t>(position),
                              cache.table(0)};
    reference_->KvAppend(nan.view(), nan.view(), kv, {&row, 1}, *stream_);
  }
  ExpectSameBits(Run(*cpu_, q, cache, {{0, 1, 100, cache.table(0)}}, 0.125f, 0),
                 before);
}

TEST_P(AttentionTest, LargeScoresDoNotOverflow) {
  const Shape shape = {1, 1, 64, 32};
  const Cache cache(rng_, shape, DType::kF32, {300});
  const Matrix q = Matrix::Random(rng_, 1, 64, DType::kF32, 1e4);
  const std::vector<SequenceRows> sequences = {{0, 1, 299, cache.table(0)}};
  const Matrix y = Run(*cpu_, q, cache, sequences, 1, 0);
  const Matrix expected = Run(*reference_, q, cache, sequences, 1, 0);
  ExpectNear(y, expected, [](int64_t, int64_t) { return 1e-3; });
}

INSTANTIATE_TEST_SUITE_P(Targets, AttentionTest,
                         ::testing::ValuesIn(BackendNames()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
