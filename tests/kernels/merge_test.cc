// Merged weights against the rows that MergeRows makes and PackWeight rounds,
// bit for bit, over every target, dtype and odd shapes.

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

constexpr int64_t kIns[] = {1, 2, 31, 96, 100, 577};

class MergeTest : public ::testing::TestWithParam<std::string> {
 protected:
  // A base weight and adapters for it, packed by `ops`.
  struct Case {
    Case(Rng& rng, Ops& ops, int64_t out, int64_t in, DType dtype,
         DType lora_dtype, const std::vector<int64_t>& ranks)
        : base(ops.PackWeight(
              Matrix::Random(rng, out, in, SourceOf(dtype)).view(), dtype)),
          gain(RandomFloats(rng, out)) {
      for (const int64_t rank : ranks) {
        packed.push_back(
            ops.PackLora(Matrix::Random(rng, rank, in, lora_dtype).view(),
                         Matrix::Random(rng, out, rank, lora_dtype).view()));
        terms.push_back({packed.back().get(), 0.3f});
      }
    }
    std::unique_ptr<PackedWeight> base;
    std::vector<std::unique_ptr<PackedLora>> packed;
    std::vector<MergeTerm> terms;
    std::vector<float> gain;
  };

  std::unique_ptr<PackedWeight> Merge(CpuBackend& ops, const Case& c,
                                      const float* gain) {
    auto to =
        ops->NewWeight(c.base->out_dim(), c.base->in_dim(), c.base->dtype());
    ops->Merge(*c.base, c.terms, gain, 0, to->out_dim(), *to, *stream_);
    return to;
  }
  // By way of rows.
  std::unique_ptr<PackedWeight> MergeRowByRow(const Case& c,
                                              const float* gain) {
    const Matrix rows(c.base->out_dim(), c.base->in_dim());
    one_->MergeRows(*c.base, c.terms, 0, rows.view());
    for (int64_t i = 0; gain != nullptr && i < rows.rows(); ++i) {
      for (int64_t k = 0; k < rows.cols(); ++k) rows.row(i)[k] *= gain[i];
    }
    return one_->PackWeight(rows.view(), c.base->dtype());
  }

  Rng rng_{11};
  CpuBackend one_{GetParam(), 1};
  CpuBackend two_{GetParam(), 2};
  std::unique_ptr<Stream> stream_ = one_->NewStream();
};

TEST_P(MergeTest, GivesTheBitsOfMergedRowsRoundedOnce) {
  for (const DType dtype : kWeightDTypes) {
    for (const DType lora : kDTypes) {
      for (const int64_t out : kOddSizes) {
        for (const int64_t in : kIns) {
          SCOPED_TRACE(::testing::Message() << Name(dtype) << " " << Name(lora)
                                            << " " << out << " x " << in);
          const Case c(rng_, *one_, out, in, dtype, lora, {3, 16});
          ASSERT_EQ(Merge(two_, c, nullptr)->packed_bytes(),
                    MergeRowByRow(c, nullptr)->packed_bytes());
          ASSERT_EQ(Merge(two_, c, c.gain.data())->packed_bytes(),
                    MergeRowByRow(c, c.gain.data())->packed_bytes());
        }
      }
    }
  }
}

// One adapter alone, which has a way of its own where all is bf16.
TEST_P(MergeTest, OfOneAdapterGivesTheBitsOfMergedRows) {
  for (const int64_t rank : {1, 2, 3, 8, 16, 33}) {
    for (const int64_t out : {1, 31, 64, 100}) {
      for (const int64_t in : {2, 10, 12, 24, 98, 576, 577}) {
        SCOPED_TRACE(::testing::Message()
                     << "rank " << rank << ", " << out << " x " << in);
        const Case c(rng_, *one_, out, in, DType::kBF16, DType::kBF16, {rank});
        ASSERT_EQ(Merge(two_, c, nullptr)->packed_bytes(),
                  MergeRowByRow(c, nullptr)->packed_bytes());
        ASSERT_EQ(Merge(two_, c, c.gain.data())->packed_bytes(),
                  MergeRowByRow(c, c.gain.data())->packed_bytes());
      }
    }
  }
}

TEST_P(MergeTest, OfNothingIsTheBase) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Case c(rng_, *one_, 100, 97, dtype, dtype, {});
    EXPECT_EQ(Merge(two_, c, nullptr)->packed_bytes(), c.base->packed_bytes());
  }
}

TEST_P(MergeTest, SlicesInAnyOrderGiveTheWholeAndLeaveTheBaseAlone) {
  for (const DType dtype : kWeightDTypes) {
    const Case c(rng_, *one_, 100, 257, dtype, DType::kF32, {5});
    const std::string before(c.base->packed_bytes());
    const auto whole = Merge(one_, c, c.gain.data());
    auto sliced = one_->NewWeight(100, 257, dtype);
    for (const auto& [begin, end] :
         {std::pair<int64_t, int64_t>{96, 100}, {0, 32}, {32, 96}}) {
      two_->Merge(*c.base, c.terms, c.gain.data(), begin, end, *sliced,
                  *stream_);
    }
    EXPECT_EQ(sliced->packed_bytes(), whole->packed_bytes()) << Name(dtype);
    EXPECT_EQ(c.base->packed_bytes(), before) << Name(dtype);
  }
}

TEST_P(MergeTest, AWeightThatIsMergedAgainKeepsNothingOfTheOld) {
  for (const DType dtype : kWeightDTypes) {
    const Case first(rng_, *one_, 40, 70, dtype, DType::kBF16, {7});
    const Case second(rng_, *one_, 40, 70, dtype, DType::kBF16, {2, 9});
    const auto to = Merge(one_, first, nullptr);
    one_->Merge(*second.base, second.terms, nullptr, 0, 40, *to, *stream_);
    EXPECT_EQ(to->packed_bytes(), Merge(one_, second, nullptr)->packed_bytes());
  }
}

// One rounding of the reference's sum: half a unit of the last place, and what
// f32 arithmetic adds to it.
TEST_P(MergeTest, MatchesReference) {
  const std::unique_ptr<Ops> reference = NewReferenceOps();
  constexpr int64_t kOut = 64, kIn = 100, kRank = 16;
  for (const DType dtype : kDTypes) {
    const Matrix w = Matrix::Random(rng_, kOut, kIn, dtype);
    const Matrix a = Matrix::Random(rng_, kRank, kIn);
    const Matrix b = Matrix::Random(rng_, kOut, kRank);
    const std::vector<float> gain(kOut, 0.5f);
    const auto merge = [&](Ops& ops) {
      const auto base = ops.PackWeight(w.view(), dtype);
      const auto lora = ops.PackLora(a.view(), b.view());
      const MergeTerm term{lora.get(), 0.25f};
      const auto to = ops.NewWeight(kOut, kIn, dtype);
      ops.Merge(*base, {&term, 1}, gain.data(), 0, kOut, *to, *stream_);
      const Matrix rows(kOut, kIn);
      ops.MergeRows(*to, {}, 0, rows.view());
      return rows.Clone();
    };
    const double unit = dtype == DType::kF32    ? kEps
                        : dtype == DType::kBF16 ? 0x1p-8
                                                : 0x1p-11;
    const Matrix expected = merge(*reference);
    ExpectNear(merge(*one_), expected, [&](int64_t i, int64_t k) {
      // Rounded apart by at most one unit; 16 products of at most 36.
      return 2 * unit * std::abs(expected.At(i, k)) + 16 * 18 * 36 * kEps;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, MergeTest,
                         ::testing::ValuesIn(SupportedCpuTargets()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
