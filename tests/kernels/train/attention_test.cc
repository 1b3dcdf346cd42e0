#include "tests/kernels/train/train_backend.h"

namespace lorikeet::testing {
namespace {

struct Shape {
  AttentionHeads heads;
  std::vector<int32_t> lengths;

  int64_t rows() const {
    int64_t sum = 0;
    for (const int32_t n : lengths) sum += n;
    return sum;
  }
  std::vector<SequenceRows> sequences() const {
    std::vector<SequenceRows> result;
    int32_t row = 0;
    for (const int32_t n : lengths) {
      result.push_back({row, row + n, 0, {}});
      row += n;
    }
    return result;
  }
};

const Shape kShapes[] = {
    {{4, 2, 16, 0.25f, 0}, {1, 7, 33}}, {{3, 1, 64, 0.125f, 0}, {100, 49}},
    {{2, 2, 24, 0.2f, 0}, {48, 5}},     {{4, 2, 16, 0.25f, 5}, {60, 3, 17}},
    {{2, 1, 40, 0.2f, 40}, {120}},      {{2, 1, 100, 0.1f, 0}, {37}},
    {{1, 1, 136, 0.1f, 20}, {50}},
};

// Inputs and everything that the two directions write.
struct Passes {
  Passes(Rng& rng, const Shape& s)
      : shape(s),
        q(Matrix::Random(rng, s.rows(), q_dim())),
        k(Matrix::Random(rng, s.rows(), kv_dim())),
        v(Matrix::Random(rng, s.rows(), kv_dim())),
        dy(Matrix::Random(rng, s.rows(), q_dim())) {}
  int64_t q_dim() const { return shape.heads.heads * shape.heads.head_dim; }
  int64_t kv_dim() const { return shape.heads.kv_heads * shape.heads.head_dim; }
  struct Result {
    Matrix y, lse, dq, dk, dv;
  };
  Result On(TrainOps& ops) const {
    const int64_t n = shape.rows();
    Result r{Matrix(n, q_dim()), Matrix(n, shape.heads.heads),
             Matrix(n, q_dim()), Matrix(n, kv_dim()), Matrix(n, kv_dim())};
    HostStream stream;
    const auto sequences = shape.sequences();
    ops.Attention(q.view(), k.view(), v.view(), sequences, shape.heads,
                  r.y.view(), r.lse.view(), stream);
    ops.AttentionBackward(q.view(), k.view(), v.view(), r.y.view(),
                          r.lse.view(), dy.view(), sequences, shape.heads,
                          r.dq.view(), r.dk.view(), r.dv.view(), stream);
    return r;
  }

  const Shape shape;
  Matrix q, k, v, dy;
};

using AttentionTest = TrainOpsTest;

TEST_P(AttentionTest, MatchesReferenceInBothDirections) {
  for (const Shape& shape : kShapes) {
    const Passes run(rng_, shape);
    const Passes::Result actual = run.On(*backend_);
    const Passes::Result expected = run.On(*reference_);
    ExpectClose(actual.y, expected.y, 1e-5);
    ExpectClose(actual.lse, expected.lse, 1e-5);
    ExpectClose(actual.dq, expected.dq, 2e-5);
    ExpectClose(actual.dk, expected.dk, 2e-5);
    ExpectClose(actual.dv, expected.dv, 2e-5);
  }
}

TEST_P(AttentionTest, ThreadsDoNotChangeBits) {
  SKIP_UNLESS_CPU("only the CPU's backend has threads");
  TrainBackend one_thread(GetParam(), 1);
  const Passes run(rng_, kShapes[1]);
  const Passes::Result two = run.On(*backend_);
  const Passes::Result one = run.On(*one_thread);
  ExpectSameBits(two.y, one.y);
  ExpectSameBits(two.dq, one.dq);
  ExpectSameBits(two.dk, one.dk);
  ExpectSameBits(two.dv, one.dv);
}

TEST_P(AttentionTest, PackedSequencesNeverSeeEachOther) {
  Passes run(rng_, kShapes[0]);
  const Passes::Result before = run.On(*backend_);
  // The last sequence, rows 8 to 40, becomes something else.
  for (int64_t i = 8; i < 41; ++i) {
    for (int64_t j = 0; j < run.q.cols(); ++j) run.q.row(i)[j] = 9;
    for (int64_t j = 0; j < run.k.cols(); ++j) {
      run.k.row(i)[j] = std::nanf("");
      run.v.row(i)[j] = std::nanf("");
    }
  }
  const Passes::Result after = run.On(*backend_);
  for (int64_t i = 0; i < 8; ++i) {
    for (int64_t j = 0; j < run.q.cols(); ++j) {
      EXPECT_EQ(after.y.At(i, j), before.y.At(i, j));
      EXPECT_EQ(after.dq.At(i, j), before.dq.At(i, j));
    }
    for (int64_t j = 0; j < run.k.cols(); ++j) {
      EXPECT_EQ(after.dk.At(i, j), before.dk.At(i, j));
      EXPECT_EQ(after.dv.At(i, j), before.dv.At(i, j));
    }
  }
}

INSTANTIATE_TRAIN_TARGETS(AttentionTest);

}  // namespace
}  // namespace lorikeet::testing
