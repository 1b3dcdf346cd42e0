#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/kernels/backends.h"

namespace lorikeet::testing {
namespace {

using ::testing::ElementsAre;

class SampleTest : public ::testing::TestWithParam<std::string> {
 protected:
  SampledRow One(Ops& ops, const std::vector<float>& logits,
                 const SamplingRow& params) {
    Matrix copy(1, static_cast<int64_t>(logits.size()));
    std::copy(logits.begin(), logits.end(), copy.row(0));
    SampledRow out;
    ops.Sample(copy.view(), {&params, 1}, {&out, 1}, *stream_);
    return out;
  }
  Token Pick(const std::vector<float>& logits, const SamplingRow& params) {
    return One(*cpu_, logits, params).token;
  }
  // An emulated device is slow.
  bool is_slow() const { return GetParam() == kCudaOnHost; }
  // The tokens drawn at `count` positions.
  std::set<Token> Drawn(const std::vector<float>& logits, SamplingRow params) {
    const uint64_t count = is_slow() ? 60 : 300;
    std::set<Token> seen;
    for (uint64_t i = 0; i < count; ++i) {
      params.output_position = i;
      seen.insert(Pick(logits, params));
    }
    return seen;
  }

  CpuBackend cpu_{GetParam(), 2};
  std::unique_ptr<Stream> stream_ = cpu_->NewStream();
  std::unique_ptr<Ops> reference_ = NewReferenceOps();
  Rng rng_{29};
};

TEST_P(SampleTest, GreedyTakesTheLargestAndTiesGoToTheLowestId) {
  for (const int64_t vocab : {1, 7, 100, 1023, 1024, 1025, 5000}) {
    std::vector<float> logits = RandomFloats(rng_, vocab);
    const size_t a = rng_.Below(static_cast<uint64_t>(vocab));
    const size_t b = rng_.Below(static_cast<uint64_t>(vocab));
    logits[a] = logits[b] = 100;
    EXPECT_EQ(Pick(logits, {}), static_cast<Token>(std::min(a, b)));
  }
}

TEST_P(SampleTest, DrawsWhatTheReferenceDraws) {
  int differ = 0;
  for (int i = 0; i < 400; i += is_slow() ? 13 : 1) {
    const std::vector<float> logits =
        RandomFloats(rng_, 50 + 40 * i, 0.5 + i % 5);
    SamplingRow p;
    p.temperature = 0.3f + static_cast<float>(rng_.Uniform()) * 1.5f;
    if (i % 2 == 1) p.top_k = static_cast<int32_t>(1 + rng_.Below(200));
    if (i % 3 == 1)
      p.top_p = 0.05f + 0.95f * static_cast<float>(rng_.Uniform());
    if (i % 5 == 1) p.min_p = 0.2f * static_cast<float>(rng_.Uniform());
    p.seed = 5;
    p.output_position = static_cast<uint64_t>(i);
    differ += Pick(logits, p) != One(*reference_, logits, p).token;
  }
  // Only a target within rounding of a boundary may fall to a neighbour.
  EXPECT_LE(differ, 2);
}

// Peaked rows: all but a few tokens weigh next to nothing, and a cut must look
// beyond those that weigh something.
TEST_P(SampleTest, ACutBeyondTheLikelyTokensDrawsWhatTheReferenceDraws) {
  int differ = 0;
  for (int i = 0; i < 200; ++i) {
    std::vector<float> logits = RandomFloats(rng_, 300 + 100 * i, 2);
    for (int j = 0; j < 5; ++j) logits[rng_.Below(logits.size())] += 40;
    SamplingRow p;
    p.temperature = 0.5f;
    p.top_k = i % 3 == 0 ? 0 : static_cast<int32_t>(4 + rng_.Below(300));
    p.top_p = i % 3 == 1 ? 1 : 0.9999999f;
    p.seed = 6;
    p.output_position = static_cast<uint64_t>(i);
    differ += Pick(logits, p) != One(*reference_, logits, p).token;
  }
  EXPECT_LE(differ, 2);
}

// A walk by blocks passes over blocks without any weight.
TEST_P(SampleTest, TokensOfNoWeightAreNeverDrawn) {
  std::vector<float> logits(3000, -std::numeric_limits<float>::infinity());
  logits[700] = logits[2900] = 1;
  logits[2000] = -1000;
  SamplingRow p;
  p.temperature = 1;
  EXPECT_THAT(Drawn(logits, p), ElementsAre(700, 2900));
  p.min_p = 0.5f;
  EXPECT_THAT(Drawn(logits, p), ElementsAre(700, 2900));
  p.top_k = 1000;
  EXPECT_THAT(Drawn(logits, p), ElementsAre(700, 2900));
}

TEST_P(SampleTest, TheLeastTemperatureTakesTheBest) {
  SamplingRow p;
  p.temperature = std::numeric_limits<float>::denorm_min();
  EXPECT_THAT(Drawn({1, 3, 2, 3}, p), ElementsAre(1, 3));
}

TEST_P(SampleTest, TopKKeepsKAndTiesFromTheLowestId) {
  SamplingRow p;
  p.temperature = 1;
  p.top_k = 3;
  EXPECT_THAT(Drawn({1, 0, 1, 1, 1, 0.5f}, p), ElementsAre(0, 2, 3));
}

TEST_P(SampleTest, TopPKeepsTheSmallestSetThatReachesTheMass) {
  // Probabilities 0.5, 0.25, 0.125, 0.125.
  const std::vector<float> logits = {std::log(0.125f), std::log(0.5f),
                                     std::log(0.25f), std::log(0.125f)};
  SamplingRow p;
  p.temperature = 1;
  p.top_p = 0.7f;
  EXPECT_THAT(Drawn(logits, p), ElementsAre(1, 2));
  p.top_p = 0.8f;
  EXPECT_THAT(Drawn(logits, p), ElementsAre(0, 1, 2));
  p.top_p = 1e-6f;
  EXPECT_THAT(Drawn(logits, p), ElementsAre(1));
}

TEST_P(SampleTest, TopPOfAFlatDistributionKeepsLowIds) {
  const std::vector<float> logits(1000, 3.0f);
  SamplingRow p;
  p.temperature = 1;
  p.top_p = 0.0995f;
  const std::set<Token> seen = Drawn(logits, p);
  EXPECT_LE(*seen.rbegin(), 99);
  EXPECT_GT(seen.size(), is_slow() ? 35u : 80u);
}

TEST_P(SampleTest, MinPIsRelativeToTheBest) {
  const std::vector<float> logits = {std::log(0.6f), std::log(0.29f),
                                     std::log(0.11f)};
  SamplingRow p;
  p.temperature = 1;
  p.min_p = 0.4f;
  EXPECT_THAT(Drawn(logits, p), ElementsAre(0, 1));
  p.min_p = 1;
  EXPECT_THAT(Drawn(logits, p), ElementsAre(0));
}

TEST_P(SampleTest, FrequenciesFollowTheProbabilities) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.6f),
                                     std::log(0.3f)};
  SamplingRow p;
  p.temperature = 1;
  p.seed = 77;
  std::map<Token, int> counts;
  const int draws = is_slow() ? 400 : 4000;
  for (int i = 0; i < draws; ++i) {
    p.output_position = static_cast<uint64_t>(i);
    ++counts[Pick(logits, p)];
  }
  for (const auto& [token, share] : {std::pair{0, 0.1}, {1, 0.6}, {2, 0.3}}) {
    const double deviation = std::sqrt(draws * share * (1 - share));
    EXPECT_NEAR(counts[token], draws * share, 5 * deviation);
  }
}

TEST_P(SampleTest, PenaltiesBiasBansAndMasks) {
  const std::vector<float> logits = {2, 3, -1, 2.5f};
  SamplingRow p;
  const std::vector<std::pair<Token, float>> bias = {{2, 10}};
  p.logit_bias = bias;
  EXPECT_EQ(Pick(logits, p), 2);
  const std::vector<Token> banned = {2};
  p.banned = banned;
  EXPECT_EQ(Pick(logits, p), 1);
  const std::vector<std::pair<Token, int32_t>> counts = {{1, 0}, {3, 2}};
  p.token_counts = counts;
  EXPECT_EQ(Pick(logits, p), 1);
  p.repetition_penalty = 1.25f;  // 3 -> 2.4, 2.5 -> 2
  EXPECT_EQ(Pick(logits, p), 1);
  p.repetition_penalty = 2;  // 1.5, 1.25
  EXPECT_EQ(Pick(logits, p), 0);
  p.repetition_penalty = 1;
  p.presence_penalty = 1;  // 1 is of the prompt only
  EXPECT_EQ(Pick(logits, p), 1);
  const std::vector<uint64_t> allowed = {0b1001};
  p.allowed_bits = allowed;
  EXPECT_EQ(Pick(logits, p), 0);  // 3 is at 1.5
  p.presence_penalty = 0;
  p.frequency_penalty = 0.2f;  // 2.5 - 0.4
  EXPECT_EQ(Pick(logits, p), 3);
}

// One after the other, though different threads may do them.
TEST_P(SampleTest, ATokenMayBeBiasedPenalisedAndBanned) {
  std::vector<float> logits(100, -5);
  logits[7] = 2;
  logits[8] = 3;
  SamplingRow p;
  const std::vector<std::pair<Token, float>> bias = {{7, 2}};
  const std::vector<std::pair<Token, int32_t>> counts = {
      {1, 1}, {7, 1}, {2, 0}, {8, 4}};
  p.logit_bias = bias;
  EXPECT_EQ(Pick(logits, p), 7);  // 4
  p.token_counts = counts;
  p.presence_penalty = 0.5f;
  p.frequency_penalty = 0.25f;
  EXPECT_EQ(Pick(logits, p), 7);  // 3.25; 8 is at 1.5
  p.repetition_penalty = 4;
  EXPECT_EQ(Pick(logits, p), 7);  // 0.25; 8 is at -0.75
  const std::vector<Token> banned = {7};
  p.banned = banned;
  EXPECT_EQ(Pick(logits, p), 8);
}

TEST_P(SampleTest, NothingAllowedGivesTheLowestId) {
  SamplingRow p;
  const std::vector<uint64_t> allowed = {0};
  p.allowed_bits = allowed;
  p.temperature = 1;
  EXPECT_EQ(Pick({1, 2, 3}, p), 0);
}

TEST_P(SampleTest, LogprobsAreOfTheRawLogits) {
  const std::vector<float> logits = RandomFloats(rng_, 3001, 3);
  SamplingRow p;
  const std::vector<std::pair<Token, float>> bias = {{1234, 50}};
  p.logit_bias = bias;
  p.num_logprobs = 5;
  const SampledRow actual = One(*cpu_, logits, p);
  const SampledRow expected = One(*reference_, logits, p);
  EXPECT_EQ(actual.token, 1234);
  EXPECT_NEAR(actual.logprob, expected.logprob, 1e-5);
  ASSERT_EQ(actual.top.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(actual.top[i].first, expected.top[i].first);
    EXPECT_NEAR(actual.top[i].second, expected.top[i].second, 1e-5);
  }
}

TEST_P(SampleTest, TopLogprobsOfEqualTokensAscendById) {
  SamplingRow p;
  p.num_logprobs = 3;
  const SampledRow row = One(*cpu_, {0, 1, 0, 1, 1, 2, 1}, p);
  ASSERT_EQ(row.top.size(), 3u);
  EXPECT_EQ(row.top[0].first, 5);
  EXPECT_EQ(row.top[1].first, 1);
  EXPECT_EQ(row.top[2].first, 3);
}

TEST_P(SampleTest, PromptLogprobsMatchReference) {
  const Matrix logits = Matrix::Random(rng_, 6, 999, DType::kF32, 2);
  const std::vector<Token> targets = {0, 5, 998, 3, 3, 100};
  std::vector<SampledRow> actual(6);
  std::vector<SampledRow> expected(6);
  cpu_->Logprobs(logits.view(), targets, 2, actual, *stream_);
  reference_->Logprobs(logits.view(), targets, 2, expected, *stream_);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(actual[i].token, targets[i]);
    EXPECT_NEAR(actual[i].logprob, expected[i].logprob, 1e-5);
    ASSERT_EQ(actual[i].top.size(), 2u);
    EXPECT_EQ(actual[i].top[1].first, expected[i].top[1].first);
  }
}

// The batch, its order and the threads have no influence.
TEST_P(SampleTest, ARowsTokenDependsOnItsOwnKeyAlone) {
  const Matrix logits = Matrix::Random(rng_, 16, 4000, DType::kF32, 2);
  std::vector<SamplingRow> params(16);
  for (size_t i = 0; i < 16; ++i) {
    params[i].temperature = 1;
    params[i].seed = 1000 + i;
    if (i % 2 == 0) params[i].top_p = 0.9f;
  }
  std::vector<SampledRow> all(16);
  cpu_->Sample(logits.Clone().view(), params, all, *stream_);
  CpuBackend other(GetParam(), 3);
  for (int64_t i = 15; i >= 0; --i) {
    SampledRow one;
    const size_t row = static_cast<size_t>(i);
    other->Sample(logits.Clone().view().Rows(i, 1), {&params[row], 1},
                  {&one, 1}, *stream_);
    EXPECT_EQ(one.token, all[row].token);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, SampleTest,
                         ::testing::ValuesIn(BackendNames()),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace lorikeet::testing
