// Merged variants of adapters for the demo model.

#include "adapters/merged_variant.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "adapters/adapter_weights.h"
#include "base/file_system.h"
#include "base/random.h"
#include "base/reason.h"
#include "kernels/cpu/cpu_ops.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

constexpr LinearId kDown{1, Projection::kDown};
constexpr LinearId kQuery{0, Projection::kQ};

class MergedVariantTest : public ::testing::Test {
 protected:
  void SetUp() override {
    PosixFileSystem fs;
    auto model =
        Model::Load(fs, testing::SourceDir() + "/demo/base", *ops_, {});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    base_.emplace(*model_, *ops_);
  }

  ConstTensor Random(int64_t rows, int64_t cols) {
    Buffer bytes(rows * cols * 4);
    for (int64_t i = 0; i < rows * cols; ++i) {
      bytes.as<float>()[i] = static_cast<float>(rng_.Normal());
    }
    const ConstTensor view(bytes.data(), DType::kF32, rows, cols, cols);
    storage_.push_back(std::move(bytes));
    return view;
  }

  LoraModule Module(LinearId id, int64_t rank, bool dora = false) {
    const PackedWeight& w = base_->weight(id);
    LoraModule module;
    module.id = id;
    module.rank = rank;
    module.scaling = 0.5;
    module.a = Random(rank, w.in_dim());
    module.b = Random(w.out_dim(), rank);
    if (dora) module.magnitude = Random(1, w.out_dim());
    return module;
  }
  std::shared_ptr<const LoraSlot> Pack(const AdapterWeights& weights) {
    auto slot = weights.Pack(*ops_, &*base_);
    EXPECT_TRUE(slot.ok()) << slot.status();
    return *std::move(slot);
  }
  std::shared_ptr<const MergedVariant> Merge(
      const std::vector<LoraTerm>& terms) {
    const auto stream = ops_->NewStream();
    MergedVariantBuilder builder(*base_, *ops_, buffers_, terms);
    while (!builder.done()) {
      const absl::Status status = builder.RunPiece(*stream);
      EXPECT_TRUE(status.ok()) << status;
    }
    EXPECT_EQ(builder.bytes_done(), builder.bytes_total());
    return builder.Take();
  }
  std::string Bytes(const MergedVariant& variant, LinearId id) {
    return std::string(
        variant.slots[0]->FindOverride(id)->weight->packed_bytes());
  }

  Rng rng_{5};
  ThreadPool threads_{2};
  std::unique_ptr<Ops> ops_ = NewCpuOps(threads_);
  std::unique_ptr<Model> model_;
  std::optional<BaseWeights> base_;
  MergedBuffers buffers_{*ops_};
  std::vector<Buffer> storage_;
};

TEST_F(MergedVariantTest, HasTheLinearsOfLayersMergedAndNothingElse) {
  AdapterWeights a;
  a.modules = {Module(kQuery, 3), Module(kDown, 8)};
  const auto slot = Pack(a);
  const std::vector<LoraTerm> terms = {{slot.get(), 1}};
  const auto variant = Merge(terms);
  ASSERT_EQ(variant->terms.size(), 1u);
  const LoraSlot& merged = *variant->terms[0].slot;
  int64_t bytes = 0;
  for (const LinearId id : {kQuery, kDown}) {
    const auto expected = LinearMerge::Create(*base_, id, terms)
                              .Pack(*ops_, base_->weight(id).dtype());
    EXPECT_EQ(Bytes(*variant, id), expected->packed_bytes());
    EXPECT_EQ(merged.Find(id), nullptr);
    bytes += expected->size_bytes();
  }
  EXPECT_EQ(variant->size_bytes, bytes);
  EXPECT_EQ(merged.FindOverride({0, Projection::kUp}), nullptr);
}

TEST_F(MergedVariantTest, TakesTheGainOfDoraInAndKeepsTheBias) {
  AdapterWeights a;
  a.modules = {Module(kDown, 4, /*dora=*/true)};
  a.modules[0].b_bias = Random(1, base_->weight(kDown).out_dim());
  const auto slot = Pack(a);
  const auto variant = Merge({{slot.get(), 1}});
  const LoraSlot::Override& before = *slot->FindOverride(kDown);
  const LoraSlot::Override& after = *variant->slots[0]->FindOverride(kDown);
  EXPECT_FALSE(before.gain.empty());
  EXPECT_TRUE(after.gain.empty());
  EXPECT_EQ(after.bias, before.bias);
}

TEST_F(MergedVariantTest, KeepsWhatTheAdapterHasBesides) {
  AdapterWeights a;
  a.modules = {Module(LinearId::EmbedTokens(), 2), Module(kDown, 4)};
  SavedParameter head;
  head.parameter.kind = BaseParameter::Kind::kWeight;
  head.parameter.linear = LinearId::LmHead();
  head.values = Random(base_->weight(LinearId::LmHead()).out_dim(),
                       base_->weight(LinearId::LmHead()).in_dim());
  a.saved = {head};
  // The embedding's A is [rank, vocab].
  a.modules[0].a = Random(2, model_->config().vocab_size);
  a.modules[0].b = Random(model_->config().hidden_size, 2);
  const auto slot = Pack(a);
  const auto variant = Merge({{slot.get(), 0.5f}});
  const LoraSlot& merged = *variant->slots[0];
  const LoraSlot::Entry* embed = merged.Find(LinearId::EmbedTokens());
  ASSERT_NE(embed, nullptr);
  EXPECT_EQ(embed->weights, slot->Find(LinearId::EmbedTokens())->weights);
  EXPECT_EQ(embed->scaling, 0.25f);
  EXPECT_EQ(merged.FindOverride(LinearId::LmHead())->weight,
            slot->FindOverride(LinearId::LmHead())->weight);
}

TEST_F(MergedVariantTest, OfASumHasOneMatrixAndTheEndsOfEachPart) {
  AdapterWeights a, b;
  a.modules = {Module(LinearId::LmHead(), 2), Module(kDown, 4)};
  b.modules = {Module(LinearId::LmHead(), 3), Module(kDown, 16)};
  const auto slot_a = Pack(a), slot_b = Pack(b);
  const std::vector<LoraTerm> terms = {{slot_a.get(), 1},
                                       {slot_b.get(), -0.5f}};
  const auto variant = Merge(terms);
  EXPECT_EQ(Bytes(*variant, kDown),
            LinearMerge::Create(*base_, kDown, terms)
                .Pack(*ops_, base_->weight(kDown).dtype())
                ->packed_bytes());
  ASSERT_EQ(variant->terms.size(), 3u);
  EXPECT_EQ(variant->terms[1].slot->Find(LinearId::LmHead())->scaling, 0.5f);
  EXPECT_EQ(variant->terms[2].slot->Find(LinearId::LmHead())->scaling, -0.25f);
}

TEST_F(MergedVariantTest, TheNextOneTakesTheMemoryOfTheOneThatIsGone) {
  AdapterWeights a, b;
  a.modules = {Module(kDown, 4)};
  b.modules = {Module(kDown, 8)};
  const auto slot_a = Pack(a), slot_b = Pack(b);
  auto first = Merge({{slot_a.get(), 1}});
  const std::string bytes = Bytes(*first, kDown);
  const PackedWeight* memory =
      first->slots[0]->FindOverride(kDown)->weight.get();
  first.reset();
  auto second = Merge({{slot_b.get(), 1}});
  EXPECT_EQ(second->slots[0]->FindOverride(kDown)->weight.get(), memory);
  EXPECT_EQ(buffers_.Trim(), 0);
  second.reset();
  EXPECT_EQ(buffers_.Trim(), base_->weight(kDown).size_bytes());
  // Made again from the base it has the same bits.
  EXPECT_EQ(Bytes(*Merge({{slot_a.get(), 1}}), kDown), bytes);
}

TEST(MergeableTest, AnAloraIsNot) {
  AdapterFeatures features;
  EXPECT_TRUE(CheckMergeable(features).ok());
  features.invocation_tokens = {1, 2};
  const absl::Status status = CheckMergeable(features);
  EXPECT_EQ(ReasonOf(status), "MERGE_UNSUPPORTED");
  EXPECT_NE(status.message().find("alora_invocation_tokens"),
            absl::string_view::npos);
}

}  // namespace
}  // namespace lorikeet
