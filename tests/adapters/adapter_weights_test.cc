#include "adapters/adapter_weights.h"

#include <gtest/gtest.h>

#include "adapters/peft_reader.h"
#include "base/file_system.h"
#include "base/random.h"
#include "kernels/lora_int8.h"
#include "kernels/reference/reference_ops.h"
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
  const auto packed = (*weights)->Pack(ops, nullptr, 7);
  ASSERT_TRUE(packed.ok()) << packed.status();
  const LoraSlot* slot = packed->get();
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
  ASSERT_TRUE(slot.ok());
  EXPECT_EQ((*slot)->Find({0, Projection::kQ}), nullptr);
}

ConstTensor View(const std::vector<float>& values, int64_t rows) {
  const int64_t cols = static_cast<int64_t>(values.size()) / rows;
  return ConstTensor(values.data(), DType::kF32, rows, cols, cols);
}

TEST(AdapterWeightsTest, PacksWhatTakesTheBasesPlace) {
  const std::unique_ptr<Ops> ops = NewReferenceOps();
  const std::vector<float> matrix(12, 3), vector = {1, 2}, rows = {5, 6, 7, 8};
  const LinearId down{0, Projection::kDown};
  const NormId norm{0, NormId::Kind::kInput};
  AdapterWeights weights;
  using Kind = BaseParameter::Kind;
  weights.saved.push_back(
      {{"", Kind::kWeight, down, {}, 2, 6}, View(matrix, 2)});
  weights.saved.push_back({{"", Kind::kBias, down, {}, 1, 2}, View(vector, 1)});
  weights.saved.push_back({{"", Kind::kNorm, {}, norm, 1, 2}, View(vector, 1)});
  weights.replaced_rows.push_back({LinearId::LmHead(), {9, 4}, View(rows, 2)});
  const auto packed = weights.Pack(*ops);
  ASSERT_TRUE(packed.ok()) << packed.status();
  const LoraSlot& slot = **packed;
  ASSERT_NE(slot.FindOverride(down), nullptr);
  EXPECT_EQ(slot.FindOverride(down)->weight->in_dim(), 6);
  EXPECT_EQ(slot.FindOverride(down)->bias, vector);
  ASSERT_NE(slot.FindNorm(norm), nullptr);
  EXPECT_EQ(slot.FindNorm(norm)[1], 2);
  // Rows are sorted by token, with their values.
  const LoraSlot::Override* head = slot.FindOverride(LinearId::LmHead());
  ASSERT_NE(head, nullptr);
  EXPECT_EQ(head->replaced, (std::vector<int32_t>{4, 9}));
  std::vector<float> first(2);
  ops->MergeRows(*head->rows, {}, 0, Tensor::F32(first.data(), 1, 2));
  EXPECT_EQ(first, (std::vector<float>{7, 8}));
}

TEST(AdapterWeightsTest, InEightBitsIsTheAdapterOfTheRoundedValues) {
  const std::unique_ptr<Ops> ops = NewReferenceOps();
  PosixFileSystem fs;
  const auto model =
      Model::Load(fs, testing::SourceDir() + "/demo/base", *ops, {});
  ASSERT_TRUE(model.ok()) << model.status();
  const BaseWeights base(**model, *ops);
  const LinearId id{0, Projection::kQ};
  const int64_t in = base.weight(id).in_dim(), out = base.weight(id).out_dim();
  const int64_t rank = 3;
  Rng rng(5);
  const auto random = [&](int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& x : values) x = static_cast<float>(rng.Normal());
    return values;
  };
  const std::vector<float> a = random(rank * in), b = random(out * rank);
  const std::vector<float> magnitude = random(out);
  std::vector<float> rounded_a(a.size()), rounded_b(b.size());
  RoundLoraA(View(a, rank), Tensor::F32(rounded_a.data(), rank, in));
  RoundLoraB(View(b, out), Tensor::F32(rounded_b.data(), out, rank));
  LoraModule module;
  module.id = id;
  module.rank = rank;
  module.scaling = 0.5;
  module.a = View(rounded_a, rank);
  module.b = View(rounded_b, out);
  module.magnitude = View(magnitude, 1);
  AdapterWeights rounded, int8;
  rounded.modules = {module};
  module.a = View(a, rank);
  module.b = View(b, out);
  module.packs_int8 = true;
  int8.modules = {module};
  int8.size_bytes = static_cast<int64_t>((a.size() + b.size()) * sizeof(float));
  EXPECT_EQ(int8.device_bytes(), LoraInt8Bytes(rank, in, out));
  const auto expected = rounded.Pack(*ops, &base);
  const auto actual = int8.Pack(*ops, &base);
  ASSERT_TRUE(actual.ok()) << actual.status();
  EXPECT_EQ((*actual)->FindOverride(id)->gain,
            (*expected)->FindOverride(id)->gain);
}

TEST(AdapterWeightsTest, ABiasOfBIsAddedScaledToTheBias) {
  const std::unique_ptr<Ops> ops = NewReferenceOps();
  PosixFileSystem fs;
  const auto model =
      Model::Load(fs, testing::SourceDir() + "/demo/base", *ops, {});
  ASSERT_TRUE(model.ok()) << model.status();
  const std::vector<float> a(8, 1), b = {1, 1}, b_bias = {4, 6}, saved = {1, 2};
  AdapterWeights weights;
  LoraModule module;
  module.id = {0, Projection::kQ};
  module.rank = 1;
  module.scaling = 0.5;
  module.a = View(a, 1);
  module.b = View(b, 2);
  module.b_bias = View(b_bias, 1);
  weights.modules.push_back(module);
  EXPECT_EQ(weights.Pack(*ops).status().code(),
            absl::StatusCode::kFailedPrecondition);
  const BaseWeights base(**model, *ops);
  ASSERT_TRUE(base.bias(module.id).empty());
  auto packed = weights.Pack(*ops, &base);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ((*packed)->FindOverride(module.id)->bias,
            (std::vector<float>{2, 3}));
  weights.saved.push_back(
      {{"", BaseParameter::Kind::kBias, module.id, {}, 1, 2}, View(saved, 1)});
  packed = weights.Pack(*ops, &base);
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ((*packed)->FindOverride(module.id)->bias,
            (std::vector<float>{3, 5}));
}

}  // namespace
}  // namespace lorikeet
