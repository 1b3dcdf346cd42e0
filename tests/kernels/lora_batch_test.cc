#include "kernels/lora_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr NormId kNorm{1, NormId::Kind::kQ};

LoraSlot SlotWithNorm() {
  LoraSlot slot;
  slot.norms.resize(static_cast<size_t>(kNorm.index()) + 1);
  slot.norms.back() = {1, 2};
  return slot;
}

TEST(LoraBatchTest, IndicesAreDenseAndAscend) {
  EXPECT_EQ(LinearId::EmbedTokens().index(), 0);
  EXPECT_EQ(LinearId::LmHead().index(), 1);
  EXPECT_EQ((LinearId{0, Projection::kQ}).index(), 2);
  EXPECT_EQ((LinearId{1, Projection::kQ}).index(),
            (LinearId{0, Projection::kDown}).index() + 1);
  EXPECT_LT(LinearId::LmHead(), (LinearId{0, Projection::kQ}));
  EXPECT_EQ(NormId::Final().index(), 0);
  EXPECT_EQ((NormId{0, NormId::Kind::kInput}).index(), 1);
  EXPECT_EQ((NormId{1, NormId::Kind::kInput}).index(),
            (NormId{0, NormId::Kind::kK}).index() + 1);
}

TEST(LoraBatchTest, RowsAreCutWhereAnOverrideBeginsOrEnds) {
  const LoraSlot a = SlotWithNorm(), b = SlotWithNorm(), plain;
  LoraBatch lora;
  lora.segments = {{1, 2, {{&plain, 1}}},
                   {2, 4, {{&a, 1}}},
                   {4, 6, {{&a, 1}}},
                   {6, 7, {{&b, 1}}}};
  const auto ranges = SplitRows(lora, kNorm, 9);
  ASSERT_THAT(ranges, SizeIs(4));
  const int64_t ends[] = {2, 6, 7, 9};
  const float* const values[] = {nullptr, a.FindNorm(kNorm), b.FindNorm(kNorm),
                                 nullptr};
  int64_t begin = 0;
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(ranges[i].row_begin, begin);
    EXPECT_EQ(ranges[i].row_end, ends[i]);
    EXPECT_EQ(ranges[i].value, values[i]);
    begin = ends[i];
  }
}

TEST(LoraBatchTest, RowsWithoutOverridesAreNotCut) {
  const LoraSlot other = SlotWithNorm();
  LoraBatch lora;
  lora.segments = {{1, 2, {{&other, 1}}}};
  EXPECT_THAT(SplitRows(lora, NormId::Final(), 9), IsEmpty());
  EXPECT_THAT(SplitRows(lora, LinearId::LmHead(), 9), IsEmpty());
  EXPECT_THAT(SplitRows(LoraBatch(), kNorm, 9), IsEmpty());
}

TEST(LoraBatchTest, BytesOfASlotAreThoseOfAllItsParts) {
  Rng rng(3);
  const std::unique_ptr<Ops> ops = NewReferenceOps();
  const LinearId id{0, Projection::kQ};
  std::vector<AdapterWeights> one;
  one.push_back({id, Matrix::Random(rng, 2, 8), Matrix::Random(rng, 8, 2), 1});
  LoraSlot slot = PackSlot(*ops, one);
  EXPECT_EQ(slot.size_bytes(), (16 + 16) * 4);
  slot.norms = {{1, 2}};
  slot.overrides.resize(static_cast<size_t>(id.index()) + 1);
  slot.overrides.back() = std::make_unique<LoraSlot::Override>();
  LoraSlot::Override& o = *slot.overrides.back();
  o.gain.resize(8);
  o.bias.resize(8);
  o.weight = ops->PackWeight(Matrix::Random(rng, 8, 8).view(), DType::kBF16);
  o.rows = ops->PackWeight(Matrix::Random(rng, 1, 8).view(), DType::kF32);
  EXPECT_EQ(slot.size_bytes(), 32 * 4 + 2 * 4 + 16 * 4 + 64 * 2 + 8 * 4);
}

}  // namespace
}  // namespace lorikeet::testing
