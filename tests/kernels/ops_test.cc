#include "kernels/ops.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

using ::testing::ElementsAre;

AdapterWeights Weights(Rng& rng, LinearId id, int64_t rank) {
  return {id, Matrix::Random(rng, rank, 8), Matrix::Random(rng, 8, rank), 1};
}

TEST(LoraLayoutTest, GivesEachAdaptedTermItsOwnRange) {
  Rng rng(1);
  const std::unique_ptr<Ops> ops = NewReferenceOps();
  const LinearId q{0, Projection::kQ};
  const LinearId k{0, Projection::kK};
  std::vector<AdapterWeights> both;
  both.push_back(Weights(rng, q, 3));
  both.push_back(Weights(rng, k, 5));
  std::vector<AdapterWeights> only_k;
  only_k.push_back(Weights(rng, k, 2));
  const LoraSlot a = PackSlot(*ops, both);
  const LoraSlot b = PackSlot(*ops, only_k);
  LoraBatch lora;
  lora.segments = {{0, 2, {{&a, 1}, {&b, 1}}}, {4, 5, {{&b, 1}, {&a, 1}}}};

  std::vector<int64_t> offsets;
  EXPECT_EQ(LoraLayout(q, lora, &offsets), 2 * 3 + 1 * 3);
  EXPECT_THAT(offsets, ElementsAre(0, -1, -1, 6));
  EXPECT_EQ(LoraLayout(k, lora, &offsets), 2 * 5 + 2 * 2 + 2 + 5);
  EXPECT_THAT(offsets, ElementsAre(0, 10, 14, 16));
}

// y = gain * (x W^T + s (x A^T) B^T) + bias with the adapter's own, and columns
// of replaced rows; in the oracle, against the formula.
TEST(LinearGroupContractTest, OverridesTakeTheBasesPlace) {
  Rng rng(2);
  const std::unique_ptr<Ops> ops = NewReferenceOps();
  const std::unique_ptr<Stream> stream = ops->NewStream();
  const LinearId id{0, Projection::kQ};
  const Matrix x = Matrix::Random(rng, 5, 8);
  const Matrix w = Matrix::Random(rng, 8, 8);
  const Matrix own = Matrix::Random(rng, 8, 8);
  const Matrix row = Matrix::Random(rng, 1, 8);
  const std::vector<float> bias = RandomFloats(rng, 8);
  const std::vector<float> own_bias = RandomFloats(rng, 8);
  const std::vector<float> gain = RandomFloats(rng, 8);
  std::vector<AdapterWeights> one;
  one.push_back(Weights(rng, id, 3));
  LoraSlot dora = PackSlot(*ops, one);
  LoraSlot saved;
  for (LoraSlot* slot : {&dora, &saved}) {
    slot->overrides.resize(static_cast<size_t>(id.index()) + 1);
    slot->overrides.back() = std::make_unique<LoraSlot::Override>();
  }
  dora.overrides.back()->gain = gain;
  LoraSlot::Override& o = *saved.overrides.back();
  o.weight = ops->PackWeight(own.view(), DType::kF32);
  o.bias = own_bias;
  o.replaced = {6};
  o.rows = ops->PackWeight(row.view(), DType::kF32);
  LoraBatch lora;
  lora.segments = {{1, 2, {{&dora, 1}}}, {3, 5, {{&saved, 1}}}};
  const auto packed = ops->PackWeight(w.view(), DType::kF32);
  const LinearPart part{id, packed.get(), bias.data()};
  const Matrix y(5, 8);
  ops->LinearGroup(x.view(), {&part, 1}, lora, {}, y.view(), *stream);

  const auto dot = [&](int64_t i, const Matrix& m, int64_t n) {
    double sum = 0;
    for (int64_t k = 0; k < 8; ++k) sum += x.At(i, k) * m.At(n, k);
    return sum;
  };
  for (int64_t n = 0; n < 8; ++n) {
    const size_t at = static_cast<size_t>(n);
    double delta = 0;
    for (int64_t r = 0; r < 3; ++r) {
      delta += dot(1, one[0].a, r) * one[0].b.At(n, r);
    }
    for (const int64_t base : {0, 2}) {
      EXPECT_NEAR(y.At(base, n), dot(base, w, n) + bias[at], 1e-5);
    }
    EXPECT_NEAR(y.At(1, n), gain[at] * (dot(1, w, n) + delta) + bias[at], 1e-4);
    for (const int64_t i : {3, 4}) {
      EXPECT_NEAR(y.At(i, n),
                  n == 6 ? dot(i, row, 0) : dot(i, own, n) + own_bias[at],
                  1e-5);
    }
  }
}

TEST(LoraLayoutTest, BaseRowsTakeNothing) {
  std::vector<int64_t> offsets = {7};
  EXPECT_EQ(LoraLayout({0, Projection::kQ}, {}, &offsets), 0);
  EXPECT_TRUE(offsets.empty());
}

}  // namespace
}  // namespace lorikeet::testing
