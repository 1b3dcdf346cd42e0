#include <gtest/gtest.h>

#include "kernels/cpu/cpu_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

class EmbedTest : public ::testing::TestWithParam<std::string> {
 protected:
  CpuBackend cpu_{GetParam(), 2};
  std::unique_ptr<Stream> stream_ = cpu_->NewStream();
  Rng rng_{3};
};

TEST_P(EmbedTest, ReadsTheRowsOfAPackedTable) {
  for (const DType dtype : kDTypes) {
    for (const int64_t hidden : kOddSizes) {
      const Matrix table = Matrix::Random(rng_, 100, hidden, dtype);
      const auto packed = cpu_->PackWeight(table.view(), dtype);
      const std::vector<Token> tokens = {0, 99, 31, 32, 15, 16, 47, 48, 99};
      Matrix y(static_cast<int64_t>(tokens.size()), hidden);
      cpu_->Embed(*packed, tokens, y.view(), *stream_);
      for (size_t i = 0; i < tokens.size(); ++i) {
        for (int64_t j = 0; j < hidden; ++j) {
          const double expected = table.At(tokens[i], j);
          ASSERT_NEAR(y.At(static_cast<int64_t>(i), j), expected,
                      cpu_.operand_eps() * std::abs(expected));
        }
      }
    }
  }
}

// Rows with a table of their own, replaced rows, a low-rank part with a gain,
// and base rows, side by side.
TEST_P(EmbedTest, AGroupGivesEachRowWhatItsAdapterChanges) {
  constexpr LinearId kId = LinearId::EmbedTokens();
  for (const int64_t hidden : kOddSizes) {
    const Matrix table = Matrix::Random(rng_, 100, hidden);
    const Matrix own = Matrix::Random(rng_, 100, hidden, DType::kBF16);
    const Matrix rows = Matrix::Random(rng_, 2, hidden);
    std::vector<AdapterWeights> low_rank;
    low_rank.push_back({kId, Matrix::Random(rng_, 3, 100),
                        Matrix::Random(rng_, hidden, 3), 0.5f});
    const auto packed = cpu_->PackWeight(table.view(), DType::kF32);
    const size_t index = static_cast<size_t>(kId.index());
    LoraSlot saved, replaced, dora = PackSlot(*cpu_, low_rank);
    for (LoraSlot* slot : {&saved, &replaced, &dora}) {
      slot->overrides.resize(index + 1);
      slot->overrides[index] = std::make_unique<LoraSlot::Override>();
    }
    saved.overrides[index]->weight = cpu_->PackWeight(own.view(), DType::kBF16);
    replaced.overrides[index]->replaced = {7, 50};
    replaced.overrides[index]->rows =
        cpu_->PackWeight(rows.view(), DType::kF32);
    const std::vector<float> gain = RandomFloats(rng_, hidden);
    dora.overrides[index]->gain = gain;
    LoraBatch lora;
    lora.segments = {
        {1, 3, {{&saved, 1}}}, {3, 6, {{&replaced, 1}}}, {7, 9, {{&dora, 1}}}};
    const std::vector<Token> tokens = {7, 7, 50, 7, 8, 50, 7, 7, 99};
    const Matrix y(9, hidden);
    cpu_->EmbedGroup(*packed, tokens, lora, y.view(), *stream_);
    for (int64_t j = 0; j < hidden; ++j) {
      double magnitude = 0;  // of the terms of the last sum
      const auto dora_of = [&](int64_t token) {
        double sum = table.At(token, j);
        magnitude = std::abs(sum);
        for (int64_t r = 0; r < 3; ++r) {
          const double term =
              0.5 * low_rank[0].b.At(j, r) * low_rank[0].a.At(r, token);
          sum += term;
          magnitude += std::abs(term);
        }
        magnitude *= std::abs(gain[size_t(j)]);
        return sum * gain[size_t(j)];
      };
      const double expected[] = {table.At(7, j), own.At(7, j),   own.At(50, j),
                                 rows.At(0, j),  table.At(8, j), rows.At(1, j),
                                 table.At(7, j)};
      for (int64_t i = 0; i < 7; ++i) {
        ASSERT_NEAR(y.At(i, j), expected[i],
                    cpu_.operand_eps() * std::abs(expected[i]))
            << i;
      }
      for (const auto& [i, token] : {std::pair{7, 7}, {8, 99}}) {
        const double exact = dora_of(token);
        ASSERT_NEAR(y.At(i, j), exact,
                    400 * kEps + ProductEps(cpu_.operand_eps()) * magnitude)
            << i;
      }
    }
  }
}

TEST_P(EmbedTest, GathersRows) {
  const Matrix x = Matrix::Random(rng_, 10, 33, DType::kF32, 1, 3);
  const std::vector<int32_t> rows = {9, 0, 0, 4};
  Matrix y(4, 33);
  cpu_->GatherRows(x.view(), rows, y.view(), *stream_);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(std::memcmp(y.row(static_cast<int64_t>(i)), x.row(rows[i]),
                          33 * sizeof(float)),
              0);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, EmbedTest,
                         ::testing::ValuesIn(BackendNames()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
