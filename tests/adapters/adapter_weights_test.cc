#include "adapters/adapter_weights.h"

#include <gtest/gtest.h>

#include "adapters/peft_reader.h"
#include "base/file_system.h"
#include "tests/adapters/fake_ops.h"
#include "tests/adapters/test_adapter.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

TEST(AdapterWeightsTest, PacksEveryModuleUnderItsLinear) {
  PosixFileSystem fs;
  const std::string dir =
      testing::WriteAdapter(testing::FreshTempDir("weights"), 0.5f);
  const auto weights = ReadPeftAdapter(fs, dir, testing::SmallModel(),
                                       PeftLimits(), std::nullopt);
  ASSERT_TRUE(weights.ok()) << weights.status();
  testing::FakeOps ops;
  const auto slot = (*weights)->Pack(ops, 7);
  EXPECT_EQ(slot->generation, 7u);
  const LoraSlot::Entry* entry = slot->Find({1, Projection::kQ});
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->scaling, 2.0f);
  EXPECT_EQ(entry->weights->rank(), 2);
  EXPECT_EQ(entry->weights->out_dim(), 8);
  EXPECT_NE(slot->Find({0, Projection::kQ}), nullptr);
  EXPECT_EQ(slot->Find({0, Projection::kV}), nullptr);
  EXPECT_EQ(slot->Find({2, Projection::kQ}), nullptr);
}

TEST(AdapterWeightsTest, PacksNothingIntoAnEmptySlot) {
  testing::FakeOps ops;
  const auto slot = AdapterWeights().Pack(ops);
  EXPECT_EQ(slot->Find({0, Projection::kQ}), nullptr);
}

}  // namespace
}  // namespace lorikeet
