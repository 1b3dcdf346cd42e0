// Gains over the demo model's weights, against the formula in double.

#include "adapters/dora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/file_system.h"
#include "base/random.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

class DoraTest : public ::testing::Test {
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

  LoraModule Module(LinearId id, int64_t rank) {
    const int64_t in = InDim(model_->config(), id.projection);
    const int64_t out = OutDim(model_->config(), id.projection);
    LoraModule module;
    module.id = id;
    module.name = NameOf(id);
    module.rank = rank;
    module.scaling = 0.5;
    module.a = Random(rank, in);
    module.b = Random(out, rank);
    module.magnitude = Random(1, out);
    return module;
  }

  double Delta(const LoraModule& m, int64_t out, int64_t in) {
    double sum = 0;
    for (int64_t r = 0; r < m.rank; ++r) sum += m.b.At(out, r) * m.a.At(r, in);
    return m.scaling * sum;
  }

  std::vector<float> Row(LinearId id, int64_t row) {
    std::vector<float> values(static_cast<size_t>(base_->weight(id).in_dim()));
    base_->MergeRows(
        id, {}, row,
        Tensor::F32(values.data(), 1, static_cast<int64_t>(values.size())));
    return values;
  }

  Rng rng_{5};
  std::unique_ptr<Ops> ops_ = NewReferenceOps();
  std::unique_ptr<Model> model_;
  std::optional<BaseWeights> base_;
  std::vector<Buffer> storage_;
};

TEST_F(DoraTest, TheGainOfALinearIsTheMagnitudeByTheNormOfTheRow) {
  for (const LinearId id :
       {LinearId{1, Projection::kDown}, LinearId::LmHead()}) {
    const LoraModule module = Module(id, 3);
    const auto gain = DoraGain(module, *base_, *ops_);
    ASSERT_TRUE(gain.ok()) << gain.status();
    for (const int64_t out : {0, 33, 63}) {
      const std::vector<float> row = Row(id, out);
      double squares = 0;
      for (size_t k = 0; k < row.size(); ++k) {
        const double w = row[k] + Delta(module, out, static_cast<int64_t>(k));
        squares += w * w;
      }
      const double expected = module.magnitude.At(0, out) / std::sqrt(squares);
      EXPECT_NEAR((*gain)[size_t(out)], expected, 1e-5 * std::abs(expected));
    }
  }
}

TEST_F(DoraTest, TheGainOfTheEmbeddingIsByTheNormOfTheColumn) {
  const LinearId id = LinearId::EmbedTokens();
  const LoraModule module = Module(id, 2);
  const auto gain = DoraGain(module, *base_, *ops_);
  ASSERT_TRUE(gain.ok()) << gain.status();
  ASSERT_EQ(static_cast<int64_t>(gain->size()), model_->config().hidden_size);
  std::vector<double> squares(gain->size());
  for (int64_t t = 0; t < model_->config().vocab_size; ++t) {
    const std::vector<float> row = Row(id, t);
    for (size_t j = 0; j < row.size(); ++j) {
      const double w = row[j] + Delta(module, static_cast<int64_t>(j), t);
      squares[j] += w * w;
    }
  }
  for (size_t j = 0; j < gain->size(); ++j) {
    const double expected =
        module.magnitude.At(0, static_cast<int64_t>(j)) / std::sqrt(squares[j]);
    EXPECT_NEAR((*gain)[j], expected, 1e-5 * std::abs(expected));
  }
}

TEST_F(DoraTest, ARowOfZerosIsRefusedByModuleAndRow) {
  const LinearId id{0, Projection::kQ};
  LoraModule module = Module(id, 1);
  module.scaling = 1;
  const std::vector<float> row = Row(id, 5);
  float* a = const_cast<float*>(module.a.f32(0));
  for (size_t k = 0; k < row.size(); ++k) a[k] = -row[k];
  const_cast<float*>(module.b.f32(0))[5] = 1;
  const auto gain = DoraGain(module, *base_, *ops_);
  ASSERT_EQ(gain.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      std::string(gain.status().message()),
      ::testing::HasSubstr("model.layers.0.self_attn.q_proj: output 5"));
}

TEST_F(DoraTest, ACopyOfTheBaseIsKnownAndAnotherTableIsNot) {
  const LinearId id = LinearId::EmbedTokens();
  const PackedWeight& table = base_->weight(id);
  std::vector<float> copy(
      static_cast<size_t>(table.out_dim() * table.in_dim()));
  const Tensor view = Tensor::F32(copy.data(), table.out_dim(), table.in_dim());
  base_->MergeRows(id, {}, 0, view);
  EXPECT_TRUE(base_->IsEqual(id, view));
  copy.back() += 1;
  EXPECT_FALSE(base_->IsEqual(id, view));
}

}  // namespace
}  // namespace lorikeet
