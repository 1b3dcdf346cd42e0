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

TEST(LoraLayoutTest, BaseRowsTakeNothing) {
  std::vector<int64_t> offsets = {7};
  EXPECT_EQ(LoraLayout({0, Projection::kQ}, {}, &offsets), 0);
  EXPECT_TRUE(offsets.empty());
}

}  // namespace
}  // namespace lorikeet::testing
