#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

class SampleTest : public ::testing::TestWithParam<std::string> {
 protected:
  SampleTest() : cpu_(GetParam(), 2) {}

  SampledRow One(Ops& ops, const Matrix& logits, const SamplingRow& row) {
    const Matrix copy = logits.Clone();
    SampledRow out;
    ops.Sample(copy.view(), {&row, 1}, {&out, 1}, stream_);
    return out;
  }

  CpuBackend cpu_;
  HostStream stream_;
  std::unique_ptr<Ops> reference_ = NewReferenceOps();
  Rng rng_{41};
};

TEST_P(SampleTest, GreedyTakesTheLargestAndTiesGoToTheLowestId) {
  for (const int64_t vocab : {1, 3, 17, 100, 1003}) {
    Matrix logits = Matrix::Random(rng_, 1, vocab);
    const int64_t best =
        static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(vocab)));
    logits.row(0)[best] = 9;
    EXPECT_EQ(One(*cpu_, logits, {}).token, best);
    logits.row(0)[vocab - 1] = 9;
    EXPECT_EQ(One(*cpu_, logits, {}).token, best);
  }
}

TEST_P(SampleTest, DrawsWhatTheReferenceDraws) {
  const Matrix logits = Matrix::Random(rng_, 1, 500, DType::kF32, 2);
  int different = 0;
  for (uint64_t position = 0; position < 400; ++position) {
    SamplingRow row;
    row.temperature = 0.3f + 0.01f * static_cast<float>(position % 100);
    row.top_k = position % 3 == 0 ? 20 : 0;
    row.top_p = position % 2 == 0 ? 0.8f : 1.0f;
    row.min_p = position % 5 == 0 ? 0.05f : 0.0f;
    row.seed = 7;
    row.output_position = position;
    const Token a = One(*cpu_, logits, row).token;
    const Token b = One(*reference_, logits, row).token;
    different += a != b;
  }
  // A draw within rounding of a boundary may fall on either side.
  EXPECT_LE(different, 2);
}

TEST_P(SampleTest, TopKAndTopPAndMinPLimitTheChoice) {
  Matrix logits(1, 64);
  for (int64_t i = 0; i < 64; ++i) {
    logits.row(0)[i] = static_cast<float>(-i) * 0.5f;
  }
  const auto chosen = [&](SamplingRow row) {
    std::set<Token> tokens;
    row.temperature = 1;
    for (uint64_t p = 0; p < 300; ++p) {
      row.output_position = p;
      tokens.insert(One(*cpu_, logits, row).token);
    }
    return tokens;
  };
  SamplingRow row;
  row.top_k = 3;
  EXPECT_THAT(chosen(row), ::testing::ElementsAre(0, 1, 2));
  row = {};
  // Probabilities are about 0.39, 0.24, 0.14, ...: two reach 0.6.
  row.top_p = 0.6f;
  EXPECT_THAT(chosen(row), ::testing::ElementsAre(0, 1));
  row = {};
  // exp(-0.5) = 0.61, exp(-1) = 0.37.
  row.min_p = 0.5f;
  EXPECT_THAT(chosen(row), ::testing::ElementsAre(0, 1));
}

TEST_P(SampleTest, BiasPenaltiesAndBansChangeTheGreedyChoice) {
  Matrix logits(1, 10);
  for (int64_t i = 0; i < 10; ++i) logits.row(0)[i] = static_cast<float>(i);
  const std::pair<Token, float> bias[] = {{2, 50.0f}};
  SamplingRow row;
  row.logit_bias = bias;
  EXPECT_EQ(One(*cpu_, logits, row).token, 2);
  const Token banned[] = {9, 8};
  row = {};
  row.banned = banned;
  EXPECT_EQ(One(*cpu_, logits, row).token, 7);
  const std::pair<Token, int32_t> counts[] = {{9, 2}, {8, 0}};
  row = {};
  row.token_counts = counts;
  // 9 / 1.2 = 7.5 and 8 / 1.2 = 6.7 are below... 7.5 stays the best.
  row.repetition_penalty = 1.2f;
  EXPECT_EQ(One(*cpu_, logits, row).token, 9);
  row.repetition_penalty = 2;
  EXPECT_EQ(One(*cpu_, logits, row).token, 7);
  row.repetition_penalty = 1;
  // Only tokens of the output count: 9 - 2 * 0.6 = 7.8 < 8.
  row.frequency_penalty = 0.6f;
  EXPECT_EQ(One(*cpu_, logits, row).token, 8);
  row.frequency_penalty = 0;
  row.presence_penalty = 1.5f;
  EXPECT_EQ(One(*cpu_, logits, row).token, 8);
}

TEST_P(SampleTest, LogprobsAreThoseOfTheRawLogits) {
  const Matrix logits = Matrix::Random(rng_, 1, 300, DType::kF32, 3);
  SamplingRow row;
  row.num_logprobs = 4;
  const std::pair<Token, float> bias[] = {{17, 100.0f}};
  row.logit_bias = bias;
  const SampledRow out = One(*cpu_, logits, row);
  EXPECT_EQ(out.token, 17);
  double sum = 0;
  for (int64_t i = 0; i < 300; ++i) {
    sum += std::exp(static_cast<double>(logits.row(0)[i]));
  }
  EXPECT_NEAR(out.logprob, logits.row(0)[17] - std::log(sum), 1e-5);
  ASSERT_EQ(out.top.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(out.top[i].second,
                logits.row(0)[out.top[i].first] - std::log(sum), 1e-5);
    EXPECT_LE(out.top[i].second, out.top[0].second);
  }
}

TEST_P(SampleTest, ARowIsSampledTheSameInEveryBatch) {
  const Matrix logits = Matrix::Random(rng_, 9, 400);
  std::vector<SamplingRow> rows(9);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].temperature = i % 3 == 0 ? 0 : 0.9f;
    rows[i].top_p = i % 2 == 0 ? 0.9f : 1;
    rows[i].seed = i;
    rows[i].num_logprobs = 2;
  }
  const Matrix copy = logits.Clone();
  std::vector<SampledRow> all(9);
  cpu_->Sample(copy.view(), rows, all, stream_);
  for (size_t i = 0; i < rows.size(); ++i) {
    Matrix one(1, 400);
    std::copy_n(logits.row(static_cast<int64_t>(i)), 400, one.row(0));
    const SampledRow alone = One(*cpu_, one, rows[i]);
    EXPECT_EQ(alone.token, all[i].token);
    EXPECT_EQ(alone.logprob, all[i].logprob);
    EXPECT_EQ(alone.top, all[i].top);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, SampleTest,
                         ::testing::ValuesIn(SupportedCpuTargets()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
