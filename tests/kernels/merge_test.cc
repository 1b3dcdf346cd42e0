// Merged weights against the rows that MergeRows makes and PackWeight rounds,
// bit for bit, over every backend, dtype and odd shapes.

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

  // What a weight holds: its bytes, or what comes of it where those are the
  // device's.
  std::string ContentOf(const PackedWeight& w) {
    if (one_.is_cpu()) return std::string(w.packed_bytes());
    const Matrix rows(w.out_dim(), w.in_dim());
    one_->MergeRows(w, {}, 0, rows.view());
    return std::string(
        reinterpret_cast<const char*>(rows.row(0)),
        static_cast<size_t>(w.out_dim() * w.in_dim()) * sizeof(float));
  }

  Rng rng_{11};
  CpuBackend one_{GetParam(), 1};
  CpuBackend two_{GetParam(), 2};
  std::unique_ptr<Stream> stream_ = one_->NewStream();
};

TEST_P(MergeTest, GivesTheBitsOfMergedRowsRoundedOnce) {
  for (const DType dtype : one_.weight_dtypes()) {
    for (const DType lora : kDTypes) {
      for (const int64_t out : kOddSizes) {
        for (const int64_t in : kIns) {
          SCOPED_TRACE(::testing::Message() << Name(dtype) << " " << Name(lora)
                                            << " " << out << " x " << in);
          const Case c(rng_, *one_, out, in, dtype, lora, {3, 16});
          ASSERT_EQ(ContentOf(*Merge(two_, c, nullptr)),
                    ContentOf(*MergeRowByRow(c, nullptr)));
          ASSERT_EQ(ContentOf(*Merge(two_, c, c.gain.data())),
                    ContentOf(*MergeRowByRow(c, c.gain.data())));
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
        ASSERT_EQ(ContentOf(*Merge(two_, c, nullptr)),
                  ContentOf(*MergeRowByRow(c, nullptr)));
        ASSERT_EQ(ContentOf(*Merge(two_, c, c.gain.data())),
                  ContentOf(*MergeRowByRow(c, c.gain.data())));
      }
    }
  }
}

TEST_P(MergeTest, OfNothingIsTheBase) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Case c(rng_, *one_, 100, 97, dtype, dtype, {});
    EXPECT_EQ(ContentOf(*Merge(two_, c, nullptr)), ContentOf(*c.base));
  }
}

TEST_P(MergeTest, SlicesInAnyOrderGiveTheWholeAndLeaveTheBaseAlone) {
  for (const DType dtype : one_.weight_dtypes()) {
    const Case c(rng_, *one_, 100, 257, dtype, DType::kF32, {5});
    const std::string before = ContentOf(*c.base);
    const auto whole = Merge(one_, c, c.gain.data());
    auto sliced = one_->NewWeight(100, 257, dtype);
    for (const auto& [begin, end] :
         {std::pair<int64_t, int64_t>{96, 100}, {0, 32}, {32, 96}}) {
      two_->Merge(*c.base, c.terms, c.gain.data(), begin, end, *sliced,
                  *stream_);
    }
    EXPECT_EQ(ContentOf(*sliced), ContentOf(*whole)) << Name(dtype);
    EXPECT_EQ(ContentOf(*c.base), before) << Name(dtype);
  }
}

TEST_P(MergeTest, AWeightThatIsMergedAgainKeepsNothingOfTheOld) {
  for (const DType dtype : one_.weight_dtypes()) {
    const Case first(rng_, *one_, 40, 70, dtype, DType::kBF16, {7});
    const Case second(rng_, *one_, 40, 70, dtype, DType::kBF16, {2, 9});
    const auto to = Merge(one_, first, nullptr);
    one_->Merge(*second.base, second.terms, nullptr, 0, 40, *to, *stream_);
    EXPECT_EQ(ContentOf(*to), ContentOf(*Merge(one_, second, nullptr)));
  }
}

// What lies beyond the columns of a row as well.
TEST_P(MergeTest, MergedWeightsMultiplyAsPackedOnes) {
  for (const int64_t in : {7, 97}) {
    const Case c(rng_, *one_, 40, in, DType::kBF16, DType::kBF16, {4});
    const Matrix x = Matrix::Random(rng_, 3, in);
    Matrix merged(3, 40), packed(3, 40);
    one_->Gemm(x.view(), *Merge(one_, c, nullptr), nullptr, merged.view(),
               *stream_);
    one_->Gemm(x.view(), *MergeRowByRow(c, nullptr), nullptr, packed.view(),
               *stream_);
    ExpectSameBits(merged, packed);
  }
}

// One rounding of the reference's sum: half a unit of the last place, and what
// f32 arithmetic adds to it.
TEST_P(MergeTest, MatchesReference) {
  const std::unique_ptr<Ops> reference = NewReferenceOps();
  constexpr int64_t kOut = 64, kIn = 100, kRank = 16;
  // A GPU keeps all in bf16.
  const DType lora_dtype = one_.is_cpu() ? DType::kF32 : DType::kBF16;
  for (const DType dtype : kDTypes) {
    if (!one_.is_cpu() && dtype != DType::kBF16) continue;
    const Matrix w = Matrix::Random(rng_, kOut, kIn, dtype);
    const Matrix a = Matrix::Random(rng_, kRank, kIn, lora_dtype);
    const Matrix b = Matrix::Random(rng_, kOut, kRank, lora_dtype);
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
                         ::testing::ValuesIn(BackendNames()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
