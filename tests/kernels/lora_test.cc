#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

constexpr LinearId kId{2, Projection::kO};
constexpr int64_t kRanks[] = {1, 3, 8, 16, 33, 64};

AdapterWeights Adapter(Rng& rng, int64_t rank, int64_t in, int64_t out, DType a,
                       DType b) {
  return {kId, Matrix::Random(rng, rank, in, a),
          Matrix::Random(rng, out, rank, b), 0.5f};
}

// A slot of the same weights for each of two backends.
struct TwoSlots {
  LoraSlot cpu;
  LoraSlot reference;
};

class LoraTest : public ::testing::TestWithParam<std::string> {
 protected:
  std::vector<float> Shrink(Ops& ops, const LoraBatch& lora, ConstTensor x) {
    std::vector<float> v(
        static_cast<size_t>(LoraLayout(kId, lora, nullptr)) + 1, -7.0f);
    ops.LoraShrink(kId, lora, x, v.data(), *stream_);
    EXPECT_EQ(v.back(), -7.0f) << "wrote beyond v";
    v.pop_back();
    return v;
  }

  CpuBackend cpu_{GetParam(), 2};
  std::unique_ptr<Stream> stream_ = cpu_->NewStream();
  std::unique_ptr<Ops> reference_ = NewReferenceOps();
  Rng rng_{19};
};

// Segments of several ranks, an adapter twice, a composition, base rows
// between, and a slot that does not adapt the linear.
struct Mixed {
  std::vector<AdapterWeights> weights;
  std::vector<LoraSlot> slots;
  LoraSlot other;
  LoraBatch lora;
  static constexpr int64_t kRows = 90;

  Mixed(Rng& rng, Ops& ops, int64_t in, int64_t out, DType a, DType b) {
    for (const int64_t rank : kRanks) {
      weights.push_back(Adapter(rng, rank, in, out, a, b));
    }
    Pack(ops);
  }
  // The same weights, or what `change` makes of them.
  Mixed(const Mixed& from, Ops& ops,
        Matrix (*change)(const Matrix&) = nullptr) {
    for (const AdapterWeights& w : from.weights) {
      weights.push_back({w.id, change == nullptr ? w.a.Clone() : change(w.a),
                         change == nullptr ? w.b.Clone() : change(w.b),
                         w.scaling});
    }
    Pack(ops);
  }
  void Pack(Ops& ops) {
    for (const AdapterWeights& w : weights) {
      std::vector<AdapterWeights> one;
      one.push_back({w.id, w.a.Clone(), w.b.Clone(), w.scaling});
      slots.push_back(PackSlot(ops, one));
    }
    lora.segments = {{0, 1, {{&slots[0], 1}}},
                     {2, 5, {{&slots[1], 2}, {&slots[4], -0.5f}}},
                     {5, 12, {{&slots[2], 1}}},
                     {12, 13, {{&other, 1}}},
                     {20, 60, {{&slots[3], 0.25f}}},
                     {60,
                      61,
                      {{&slots[5], 1},
                       {&other, 1},
                       {&slots[0], 1},
                       {&slots[4], 1},
                       {&slots[2], -1}}},
                     {62, 89, {{&slots[3], 1}, {&slots[3], 1}}}};
  }
};

TEST_P(LoraTest, ShrinkMatchesReference) {
  for (const DType a : kDTypes) {
    for (const int64_t in : {1, 3, 17, 31, 64, 100, 512, 577, 1100}) {
      SCOPED_TRACE(::testing::Message() << Name(a) << " in " << in);
      // One output: nothing lies behind A that a read beyond it could hit.
      const Mixed mixed(rng_, *cpu_, in, 1, a, DType::kF32);
      const Mixed same(mixed, *reference_);
      const Matrix x =
          Matrix::Random(rng_, Mixed::kRows, in, DType::kF32, 1, 1);
      const std::vector<float> actual = Shrink(*cpu_, mixed.lora, x.view());
      const std::vector<float> expected =
          Shrink(*reference_, same.lora, x.view());
      ASSERT_EQ(actual.size(), expected.size());
      const Mixed absolute(mixed, *reference_, &Abs);
      const std::vector<float> magnitude =
          Shrink(*reference_, absolute.lora, Abs(x).view());
      for (size_t i = 0; i < actual.size(); ++i) {
        const double eps =
            static_cast<double>(in + 5) * kEps + ProductEps(cpu_.operand_eps());
        ASSERT_NEAR(actual[i], expected[i], eps * magnitude[i]) << i;
      }
    }
  }
}

TEST_P(LoraTest, ExpandMatchesReference) {
  for (const DType b : kDTypes) {
    for (const int64_t out : kOddSizes) {
      SCOPED_TRACE(::testing::Message() << Name(b) << " out " << out);
      const Mixed mixed(rng_, *cpu_, 8, out, DType::kF32, b);
      const Mixed same(mixed, *reference_);
      const std::vector<float> v =
          RandomFloats(rng_, LoraLayout(kId, mixed.lora, nullptr));
      Matrix expected =
          Matrix::Random(rng_, Mixed::kRows, out, DType::kF32, 1, 5);
      Matrix actual = expected.Clone();
      const Matrix before = expected.Clone();
      reference_->LoraExpand(kId, same.lora, v.data(), expected.view(),
                             *stream_);
      cpu_->LoraExpand(kId, mixed.lora, v.data(), actual.view(), *stream_);
      // v is exact to 16 bits where the CPU keeps 24; only B may be rounded.
      Mixed absolute(mixed, *reference_, &Abs);
      for (LoraSegment& s : absolute.lora.segments) {
        for (LoraTerm& t : s.terms) t.scale = std::fabs(t.scale);
      }
      std::vector<float> abs_v = v;
      for (float& f : abs_v) f = std::fabs(f);
      Matrix magnitude(Mixed::kRows, out);
      reference_->LoraExpand(kId, absolute.lora, abs_v.data(), magnitude.view(),
                             *stream_);
      const double eps = 1.01 * cpu_.operand_eps();
      ExpectNear(actual, expected, [&](int64_t i, int64_t j) {
        return 65 * 64 * kEps * 4 + eps * magnitude.At(i, j);
      });
      for (const int64_t row : {1, 12, 15, 61, 89}) {
        EXPECT_EQ(std::memcmp(actual.row(row), before.row(row),
                              static_cast<size_t>(out) * 4),
                  0)
            << "base row " << row;
      }
    }
  }
}

TEST_P(LoraTest, ARowKeepsItsBitsInEverySegmentAndOnAnyThreads) {
  const int64_t in = 1100;
  const int64_t out = 330;
  for (const int64_t rank : kRanks) {
    std::vector<AdapterWeights> weights;
    weights.push_back(Adapter(rng_, rank, in, out, DType::kBF16, DType::kBF16));
    const LoraSlot slot = PackSlot(*cpu_, weights);
    const Matrix x = Matrix::Random(rng_, 50, in);
    const Matrix y = Matrix::Random(rng_, 50, out);
    LoraBatch whole;
    whole.segments = {{0, 50, {{&slot, 0.7f}}}};
    const Matrix all = y.Clone();
    const std::vector<float> v = Shrink(*cpu_, whole, x.view());
    cpu_->LoraExpand(kId, whole, v.data(), all.view(), *stream_);
    for (const int threads : {1, 3}) {
      CpuBackend other(GetParam(), threads);
      LoraBatch pieces;
      for (int32_t row = 0; row < 50;) {
        const int32_t end =
            std::min(50, row + 1 + static_cast<int32_t>(rng_.Below(15)));
        pieces.segments.push_back({row, end, {{&slot, 0.7f}}});
        row = end;
      }
      const std::vector<float> v2 = Shrink(*other, pieces, x.view());
      EXPECT_EQ(v2, v);
      const Matrix some = y.Clone();
      other->LoraExpand(kId, pieces, v2.data(), some.view(), *stream_);
      ExpectSameBits(some, all);
    }
  }
}

TEST_P(LoraTest, RanksAreNotPadded) {
  if (!cpu_.is_cpu()) GTEST_SKIP() << "rows are, to 16 bytes";
  std::vector<AdapterWeights> one;
  one.push_back(Adapter(rng_, 3, 64, 32, DType::kBF16, DType::kBF16));
  const LoraSlot slot = PackSlot(*cpu_, one);
  EXPECT_EQ(slot.Find(kId)->weights->size_bytes(), 2 * 3 * (64 + 32));
}

TEST_P(LoraTest, LookupIsTheShrinkOfOneHotRows) {
  for (const DType a : kDTypes) {
    for (const int64_t vocab : {1, 31, 64, 577}) {
      const Mixed mixed(rng_, *cpu_, vocab, 8, a, DType::kF32);
      const Mixed same(mixed, *reference_);
      std::vector<Token> tokens;
      for (int64_t i = 0; i < Mixed::kRows; ++i) {
        tokens.push_back(
            static_cast<Token>(rng_.Below(static_cast<uint64_t>(vocab))));
      }
      const size_t size =
          static_cast<size_t>(LoraLayout(kId, mixed.lora, nullptr));
      std::vector<float> actual(size + 1, -7.0f);
      std::vector<float> expected(size + 1, -7.0f);
      cpu_->LoraLookup(kId, mixed.lora, tokens, actual.data(), *stream_);
      reference_->LoraLookup(kId, same.lora, tokens, expected.data(), *stream_);
      for (size_t i = 0; i <= size; ++i) {
        ASSERT_NEAR(actual[i], expected[i],
                    cpu_.operand_eps() * std::fabs(expected[i]));
      }
    }
  }
}

TEST_P(LoraTest, MergedRowsMatchReference) {
  for (const DType dtype : kDTypes) {
    for (const int64_t out : kOddSizes) {
      for (const int64_t in : {1, 17, 100, 577}) {
        SCOPED_TRACE(::testing::Message()
                     << Name(dtype) << " " << out << " x " << in);
        const Matrix w = Matrix::Random(rng_, out, in, dtype);
        const auto cpu_w = cpu_->PackWeight(w.view(), dtype);
        const auto reference_w = reference_->PackWeight(w.view(), dtype);
        std::vector<std::unique_ptr<PackedLora>> packed;
        std::vector<MergeTerm> cpu_terms, reference_terms;
        for (const int64_t rank : {3, 16}) {
          const AdapterWeights lora =
              Adapter(rng_, rank, in, out, dtype, dtype);
          packed.push_back(cpu_->PackLora(lora.a.view(), lora.b.view()));
          cpu_terms.push_back({packed.back().get(), 0.5f});
          packed.push_back(reference_->PackLora(lora.a.view(), lora.b.view()));
          reference_terms.push_back({packed.back().get(), 0.5f});
        }
        const Matrix expected(out, in);
        reference_->MergeRows(*reference_w, reference_terms, 0,
                              expected.view());
        Matrix actual(out, in);
        cpu_->MergeRows(*cpu_w, cpu_terms, 0, actual.view());
        // 19 products of normal numbers, each at most 6 * 6.
        const double eps = 20 * kEps + ProductEps(cpu_.operand_eps());
        ExpectNear(actual, expected,
                   [&](int64_t, int64_t) { return eps * 19 * 36; });
        // A slice has the rows of the whole.
        const Matrix slice(out - out / 2, in);
        cpu_->MergeRows(*cpu_w, cpu_terms, out / 2, slice.view());
        for (int64_t i = 0; i < slice.rows(); ++i) {
          ASSERT_EQ(std::memcmp(slice.row(i), actual.row(out / 2 + i),
                                static_cast<size_t>(in) * 4),
                    0);
        }
        cpu_->MergeRows(*cpu_w, {}, 0, actual.view());
        for (int64_t i = 0; i < out; ++i) {
          for (int64_t k = 0; k < in; ++k) {
            ASSERT_NEAR(actual.At(i, k), w.At(i, k),
                        cpu_.operand_eps() * std::fabs(w.At(i, k)))
                << "no terms";
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, LoraTest, ::testing::ValuesIn(BackendNames()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
