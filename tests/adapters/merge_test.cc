// Merged rows against the unmerged linear over the demo model's weights.

#include "adapters/merge.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/file_system.h"
#include "base/random.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

constexpr LinearId kId{1, Projection::kDown};

class MergeTest : public ::testing::Test {
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

  AdapterWeights Adapter(LinearId id, int64_t rank, bool dora = false) {
    LoraModule module;
    module.id = id;
    module.rank = rank;
    module.scaling = 0.5;
    module.a = Random(rank, InDim(model_->config(), id.projection));
    module.b = Random(OutDim(model_->config(), id.projection), rank);
    if (dora) module.magnitude = Random(1, module.b.rows);
    AdapterWeights weights;
    weights.modules.push_back(module);
    return weights;
  }

  // y = x W^T with all that the terms change, and the same by merged weights.
  std::pair<std::vector<float>, std::vector<float>> BothWays(
      const std::vector<LoraTerm>& terms, const LinearMerge& merge) {
    const auto stream = ops_->NewStream();
    const ConstTensor x = Random(2, merge.cols());
    std::pair<std::vector<float>, std::vector<float>> y;
    y.first.resize(static_cast<size_t>(2 * merge.rows()));
    y.second = y.first;
    LoraBatch lora;
    lora.segments = {{0, 2, terms}};
    const LinearPart part{kId, &base_->weight(kId)};
    ops_->LinearGroup(x, {&part, 1}, lora, {},
                      Tensor::F32(y.first.data(), 2, merge.rows()), *stream);
    const auto packed = merge.Pack(*ops_, DType::kF32);
    ops_->Gemm(x, *packed, nullptr,
               Tensor::F32(y.second.data(), 2, merge.rows()), *stream);
    return y;
  }

  void ExpectSameAnswer(const std::vector<LoraTerm>& terms,
                        const LinearMerge& merge) {
    const auto [unmerged, merged] = BothWays(terms, merge);
    double squares = 0;
    for (const float v : unmerged) squares += static_cast<double>(v) * v;
    const double rms =
        std::sqrt(squares / static_cast<double>(unmerged.size()));
    for (size_t i = 0; i < unmerged.size(); ++i) {
      ASSERT_NEAR(merged[i], unmerged[i], 2e-5 * rms) << i;
    }
  }

  Rng rng_{5};
  ThreadPool threads_{1};
  std::unique_ptr<Ops> ops_ = NewCpuOps(threads_);
  std::unique_ptr<Model> model_;
  std::optional<BaseWeights> base_;
  std::vector<Buffer> storage_;
};

TEST_F(MergeTest, MergedWeightsAnswerAsTheUnmergedSumOfAdapters) {
  const AdapterWeights a = Adapter(kId, 3), b = Adapter(kId, 16);
  const auto slot_a = a.Pack(*ops_), slot_b = b.Pack(*ops_);
  const std::vector<LoraTerm> terms = {{slot_a->get(), 1},
                                       {slot_b->get(), -0.25f}};
  const auto host = LinearMerge::Create(
      *base_, *ops_, kId, std::vector<MergeAdapter>{{&a, 1}, {&b, -0.25f}});
  ASSERT_TRUE(host.ok()) << host.status();
  ExpectSameAnswer(terms, *host);
  ExpectSameAnswer(terms, LinearMerge::Create(*base_, kId, terms));
}

TEST_F(MergeTest, TheGainOfDoraIsMergedToo) {
  const AdapterWeights dora = Adapter(kId, 4, /*dora=*/true);
  const auto slot = dora.Pack(*ops_, &*base_);
  ASSERT_TRUE(slot.ok()) << slot.status();
  const std::vector<LoraTerm> terms = {{slot->get(), 1}};
  const auto host = LinearMerge::Create(*base_, *ops_, kId,
                                        std::vector<MergeAdapter>{{&dora, 1}});
  ASSERT_TRUE(host.ok()) << host.status();
  ExpectSameAnswer(terms, *host);
  ExpectSameAnswer(terms, LinearMerge::Create(*base_, kId, terms));
}

TEST_F(MergeTest, ASavedWeightTakesTheBasesPlace) {
  AdapterWeights saved;
  const ConstTensor values =
      Random(base_->weight(kId).out_dim(), base_->weight(kId).in_dim());
  saved.saved.push_back(
      {{"", BaseParameter::Kind::kWeight, kId, {}, values.rows, values.cols},
       values});
  const auto slot = saved.Pack(*ops_);
  ASSERT_TRUE(slot.ok()) << slot.status();
  const std::vector<LoraTerm> terms = {{slot->get(), 1}};
  ExpectSameAnswer(terms, LinearMerge::Create(*base_, kId, terms));
  const auto host = LinearMerge::Create(*base_, *ops_, kId,
                                        std::vector<MergeAdapter>{{&saved, 1}});
  ASSERT_TRUE(host.ok());
  ExpectSameAnswer(terms, *host);
}

TEST_F(MergeTest, SlicesInAnyOrderGiveTheBitsOfTheWhole) {
  const AdapterWeights a = Adapter(kId, 5, /*dora=*/true);
  const auto merge = LinearMerge::Create(*base_, *ops_, kId,
                                         std::vector<MergeAdapter>{{&a, 1}});
  ASSERT_TRUE(merge.ok());
  const size_t size = static_cast<size_t>(merge->rows() * merge->cols());
  std::vector<float> whole(size), sliced(size);
  merge->Rows(0, Tensor::F32(whole.data(), merge->rows(), merge->cols()));
  for (int64_t row = merge->rows(); row-- > 0;) {
    merge->Rows(row, Tensor::F32(sliced.data() + row * merge->cols(), 1,
                                 merge->cols()));
  }
  EXPECT_EQ(sliced, whole);
}

TEST_F(MergeTest, ThereIsOneRoundingToTheDtype) {
  const AdapterWeights a = Adapter(kId, 8);
  const auto merge = LinearMerge::Create(*base_, *ops_, kId,
                                         std::vector<MergeAdapter>{{&a, 1}});
  ASSERT_TRUE(merge.ok());
  std::vector<float> exact(static_cast<size_t>(merge->cols()));
  std::vector<float> rounded = exact;
  const auto packed = merge->Pack(*ops_, DType::kBF16);
  for (const int64_t row : {int64_t{0}, merge->rows() - 1}) {
    merge->Rows(row, Tensor::F32(exact.data(), 1, merge->cols()));
    ops_->MergeRows(*packed, {}, row,
                    Tensor::F32(rounded.data(), 1, merge->cols()));
    for (size_t k = 0; k < exact.size(); ++k) {
      ASSERT_EQ(rounded[k], FloatFromBF16(BF16FromFloat(exact[k])));
    }
  }
}

TEST_F(MergeTest, RowsOfTheEmbeddingAreMergedTransposed) {
  const LinearId id = LinearId::EmbedTokens();
  AdapterWeights a = Adapter(id, 2);
  const ConstTensor row = Random(1, model_->config().hidden_size);
  a.replaced_rows.push_back({id, {7}, row});
  const std::vector<MergeAdapter> adapters = {{&a, 1}};
  EXPECT_TRUE(LinearMerge::Changes(id, adapters));
  EXPECT_FALSE(LinearMerge::Changes(kId, adapters));
  const auto merge = LinearMerge::Create(*base_, *ops_, id, adapters);
  ASSERT_TRUE(merge.ok());
  std::vector<float> base(static_cast<size_t>(merge->cols()));
  std::vector<float> merged = base;
  for (const int64_t token : {0, 7, 300}) {
    base_->MergeRows(id, {}, token, Tensor::F32(base.data(), 1, merge->cols()));
    merge->Rows(token, Tensor::F32(merged.data(), 1, merge->cols()));
    for (int64_t j = 0; j < merge->cols(); ++j) {
      const LoraModule& m = a.modules[0];
      const double delta =
          m.b.At(j, 0) * m.a.At(0, token) + m.b.At(j, 1) * m.a.At(1, token);
      const size_t at = static_cast<size_t>(j);
      EXPECT_NEAR(merged[at], token == 7 ? row.At(0, j) : base[at] + delta / 2,
                  1e-5);
    }
  }
}

}  // namespace
}  // namespace lorikeet
