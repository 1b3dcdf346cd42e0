// Adapters in 8 bits: how numbers are rounded, and that an operator gives with
// them what it gives with an adapter in f32 that has the rounded values.

#include "kernels/lora_int8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

constexpr LinearId kId{2, Projection::kO};
constexpr int64_t kRanks[] = {1, 3, 8, 33, 64};

Matrix RoundedA(const Matrix& a) {
  Matrix out(a.rows(), a.cols());
  RoundLoraA(a.view(), out.view());
  return out;
}

Matrix RoundedB(const Matrix& b) {
  Matrix out(b.rows(), b.cols());
  RoundLoraB(b.view(), out.view());
  return out;
}

Matrix Transposed(const Matrix& m) {
  Matrix out(m.cols(), m.rows());
  for (int64_t i = 0; i < m.rows(); ++i) {
    for (int64_t j = 0; j < m.cols(); ++j) {
      out.row(j)[i] = static_cast<float>(m.At(i, j));
    }
  }
  return out;
}

TEST(LoraInt8Test, ANumberIsWithinHalfAStepAndTheLargestIsNotCut) {
  Rng rng(1);
  for (const double deviation : {1e-30, 1e-9, 1e-3, 1.0, 1e4}) {
    for (int round = 0; round < 200; ++round) {
      const std::vector<float> w = RandomFloats(rng, kLoraVector, deviation);
      int8_t q[kLoraVector];
      const float scale = FloatFromBF16(
          QuantizeLoraVector(w.data(), static_cast<int64_t>(w.size()), q));
      int most = 0;
      for (size_t i = 0; i < w.size(); ++i) {
        EXPECT_LE(std::abs(w[i] - scale * q[i]), 0.5001f * scale) << deviation;
        most = std::max(most, std::abs(int{q[i]}));
      }
      EXPECT_GE(most, 125) << "a scale larger than needed";
    }
  }
}

TEST(LoraInt8Test, ZerosAndWhatIsNextToThemAreZeros) {
  for (const float value : {0.0f, 1e-42f, 1e-38f}) {
    const float w[2] = {value, -value};
    int8_t q[kLoraVector];
    EXPECT_EQ(QuantizeLoraVector(w, 2, q), 0);
    for (const int8_t n : q) EXPECT_EQ(n, 0);
  }
}

TEST(LoraInt8Test, TransposingBothGivesTheSameValues) {
  Rng rng(2);
  const Matrix b = Matrix::Random(rng, 77, 5);
  ExpectSameBits(RoundedA(Transposed(b)), Transposed(RoundedB(b)));
}

// One adapter in 8 bits, and its values as one in f32.
class LoraInt8OpsTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!ops_->has_int8_lora()) GTEST_SKIP() << "no adapters in 8 bits";
  }

  struct Case {
    LoraSlot int8, f32;
  };
  Case Make(int64_t rank, int64_t in, int64_t out, DType dtype) {
    const Matrix a = Matrix::Random(rng_, rank, in, dtype);
    const Matrix b = Matrix::Random(rng_, out, rank, dtype, 0.01);
    std::vector<AdapterWeights> rounded;
    rounded.push_back({kId, RoundedA(a), RoundedB(b), 0.5f});
    Case result;
    result.f32 = PackSlot(*ops_, rounded);
    const size_t i = static_cast<size_t>(kId.index());
    result.int8.entries.resize(i + 1);
    result.int8.entries[i] = {ops_->PackLoraInt8(a.view(), b.view()), 0.5f};
    return result;
  }
  static LoraBatch Batch(const LoraSlot& slot, int32_t rows) {
    LoraBatch lora;
    lora.segments = {{0, 1, {{&slot, 1}}},
                     {2, rows, {{&slot, 0.7f}, {&slot, -1}}}};
    return lora;
  }
  std::vector<float> Shrink(const LoraBatch& lora, ConstTensor x) {
    std::vector<float> v(static_cast<size_t>(LoraLayout(kId, lora, nullptr)));
    ops_->LoraShrink(kId, lora, x, v.data(), *stream_);
    return v;
  }
  const PackedLora& WeightsOf(const LoraSlot& slot) {
    return *slot.Find(kId)->weights;
  }

  CpuBackend ops_{GetParam(), 2};
  std::unique_ptr<Stream> stream_ = ops_->NewStream();
  Rng rng_{3};
};

TEST_P(LoraInt8OpsTest, ShrinkAndExpandAreThoseOfTheRoundedValues) {
  for (const int64_t rank : kRanks) {
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{1, 1},
                                  {31, 100},
                                  {64, 32},
                                  {1100, 330}}) {
      SCOPED_TRACE(::testing::Message()
                   << "rank " << rank << ", " << out << " x " << in);
      const Case c = Make(rank, in, out, DType::kBF16);
      const int32_t rows = 20;
      const Matrix x = Matrix::Random(rng_, rows, in);
      const LoraBatch int8 = Batch(c.int8, rows), f32 = Batch(c.f32, rows);
      const std::vector<float> v = Shrink(int8, x.view());
      EXPECT_EQ(v, Shrink(f32, x.view()));
      const Matrix y = Matrix::Random(rng_, rows, out);
      const Matrix actual = y.Clone(), expected = y.Clone();
      ops_->LoraExpand(kId, int8, v.data(), actual.view(), *stream_);
      ops_->LoraExpand(kId, f32, v.data(), expected.view(), *stream_);
      ExpectSameBits(actual, expected);
    }
  }
}

TEST_P(LoraInt8OpsTest, LookupIsThatOfTheRoundedValues) {
  const Case c = Make(13, 100, 8, DType::kF32);
  const int32_t rows = 30;
  std::vector<Token> tokens;
  for (int i = 0; i < rows; ++i) tokens.push_back((i * 37) % 100);
  const auto lookup = [&](const LoraSlot& slot) {
    const LoraBatch lora = Batch(slot, rows);
    std::vector<float> v(static_cast<size_t>(LoraLayout(kId, lora, nullptr)));
    ops_->LoraLookup(kId, lora, tokens, v.data(), *stream_);
    return v;
  };
  EXPECT_EQ(lookup(c.int8), lookup(c.f32));
}

TEST_P(LoraInt8OpsTest, MergedWeightsAreThoseOfTheRoundedValues) {
  for (const int64_t rank : kRanks) {
    const int64_t in = 100, out = 77;
    const Case c = Make(rank, in, out, DType::kF16);
    const auto base =
        ops_->PackWeight(Matrix::Random(rng_, out, in).view(), DType::kF32);
    const auto merge_rows = [&](const LoraSlot& slot) {
      const MergeTerm term{&WeightsOf(slot), 0.3f};
      Matrix rows(out, in);
      ops_->MergeRows(*base, {&term, 1}, 0, rows.view());
      return rows;
    };
    const Matrix expected = merge_rows(c.f32);
    ExpectSameBits(merge_rows(c.int8), expected);
    const auto to = ops_->NewWeight(out, in, DType::kF32);
    if (to == nullptr) continue;
    const MergeTerm term{&WeightsOf(c.int8), 0.3f};
    ops_->Merge(*base, {&term, 1}, nullptr, 0, out, *to, *stream_);
    Matrix merged(out, in);
    ops_->MergeRows(*to, {}, 0, merged.view());
    ExpectSameBits(merged, expected);
  }
}

TEST_P(LoraInt8OpsTest, TakesABitMoreThanHalfOfBf16) {
  const Case c = Make(8, 64, 96, DType::kBF16);
  EXPECT_EQ(WeightsOf(c.int8).size_bytes(), LoraInt8Bytes(8, 64, 96));
  EXPECT_EQ(LoraInt8Bytes(8, 64, 96), 8 * (64 + 96) * 34 / 32);
}

INSTANTIATE_TEST_SUITE_P(Targets, LoraInt8OpsTest,
                         ::testing::ValuesIn(BackendNames()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
