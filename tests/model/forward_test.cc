// The forward pass against the answers of transformers, and against itself:
// whole or chunked, alone or in a batch, on one thread or two.

#include "model/forward.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model/test_runner.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

using testing::Golden;
using testing::GoldenPrompt;
using testing::Greedy;
using testing::LogitError;
using testing::NewBackend;
using testing::TestRunner;
using testing::TestSequence;
using testing::TinyDir;

constexpr const char* kModels[] = {"llama-gqa-tied",    "llama3-rope-old",
                                   "llama3-rope-new",   "mistral-full",
                                   "mistral-swa16",     "qwen2-bias-tied",
                                   "qwen3-qknorm",      "llama-mha-bias-f16",
                                   "llama-sharded-f32", "llama-yarn"};

#define SKIP_WITHOUT_GOLDEN() \
  if (TinyDir().empty()) GTEST_SKIP() << "skipped: no shared golden data"

std::string ModelDir(const std::string& model) {
  return TinyDir() + "/models/" + model;
}

Golden BaseGolden(const std::string& model) {
  auto golden =
      testing::ReadGolden(TinyDir() + "/golden/" + model + "/base.safetensors");
  EXPECT_TRUE(golden.ok()) << golden.status();
  return golden.ok() ? *std::move(golden) : Golden();
}

int64_t PositionsOf(const GoldenPrompt& p) {
  return static_cast<int64_t>(p.ids.size() + p.greedy_ids.size());
}

// All logits of `ids`, fed in chunks of these sizes, over and over.
std::vector<float> FeedInChunks(TestRunner& runner,
                                const std::vector<Token>& ids,
                                const std::vector<size_t>& chunk_sizes) {
  TestSequence sequence = runner.NewSequence(static_cast<int64_t>(ids.size()));
  std::vector<float> logits;
  size_t begin = 0;
  for (size_t i = 0; begin < ids.size(); ++i) {
    const size_t size =
        std::min(chunk_sizes[i % chunk_sizes.size()], ids.size() - begin);
    const std::vector<Token> chunk(
        ids.begin() + static_cast<std::ptrdiff_t>(begin),
        ids.begin() + static_cast<std::ptrdiff_t>(begin + size));
    const std::vector<float> part =
        runner.Feed(sequence, chunk, static_cast<int64_t>(size));
    logits.insert(logits.end(), part.begin(), part.end());
    begin += size;
  }
  return logits;
}

// gtest takes letters, digits and underscores only.
std::string TestName(std::string text) {
  std::replace(text.begin(), text.end(), '-', '_');
  return text;
}

class ForwardGoldenTest
    : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(ForwardGoldenTest, LogitsAndGreedyTokensAreThoseOfTransformers) {
  SKIP_WITHOUT_GOLDEN();
  const auto& [backend, model] = GetParam();
  TestRunner runner(ModelDir(model), NewBackend(backend));
  const Golden golden = BaseGolden(model);
  ASSERT_EQ(golden.prompts.size(), 6u);
  ASSERT_EQ(golden.vocab, runner.vocab());
  LogitError error;
  for (const GoldenPrompt& p : golden.prompts) {
    TestSequence sequence = runner.NewSequence(PositionsOf(p));
    std::vector<float> logits = runner.Feed(sequence, p.ids, p.logit_rows);
    error.Add(logits.data(), p.logits.data(),
              static_cast<int64_t>(p.logits.size()), golden.logits_rms);
    ASSERT_EQ(p.safe_steps, static_cast<int64_t>(p.greedy_ids.size()));
    std::vector<Token> tokens;
    for (size_t step = 0; step < p.greedy_ids.size(); ++step) {
      if (step > 0) logits = runner.Feed(sequence, {tokens.back()});
      tokens.push_back(Greedy(
          logits.data() + static_cast<int64_t>(logits.size()) - golden.vocab,
          golden.vocab));
    }
    EXPECT_EQ(tokens, p.greedy_ids);
    error.Add(logits.data(), p.decode_logits.data(), golden.vocab,
              golden.logits_rms);
  }
  EXPECT_LE(error.max, 2e-4);
  RecordProperty("error_max", std::to_string(error.max));
  std::printf("%s %s: max %.2g rms %.2g of logits rms\n", backend, model,
              error.max, error.rms());
}

INSTANTIATE_TEST_SUITE_P(
    Models, ForwardGoldenTest,
    ::testing::Combine(::testing::Values("reference", "cpu"),
                       ::testing::ValuesIn(kModels)),
    [](const auto& test) {
      return TestName(std::string(std::get<0>(test.param)) + "_" +
                      std::get<1>(test.param));
    });

class ForwardCpuTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ForwardCpuTest, ChunkedPrefillIsWholePrefillBitForBit) {
  SKIP_WITHOUT_GOLDEN();
  TestRunner runner(ModelDir(GetParam()), NewBackend("cpu"));
  const std::vector<Token> ids = BaseGolden(GetParam()).prompts[5].ids;
  ASSERT_EQ(ids.size(), 150u);
  const std::vector<float> whole = FeedInChunks(runner, ids, {150});
  EXPECT_EQ(FeedInChunks(runner, ids, {1}), whole);
  EXPECT_EQ(FeedInChunks(runner, ids, {7, 33, 64, 3}), whole);
  EXPECT_EQ(FeedInChunks(runner, ids, {32}), whole);
  EXPECT_EQ(FeedInChunks(runner, ids, {149, 1}), whole);
}

TEST_P(ForwardCpuTest, TwoThreadsGiveTheBitsOfOne) {
  SKIP_WITHOUT_GOLDEN();
  TestRunner one(ModelDir(GetParam()), NewBackend("cpu", 1));
  TestRunner two(ModelDir(GetParam()), NewBackend("cpu", 2));
  TestRunner five(ModelDir(GetParam()), NewBackend("cpu", 5));
  const std::vector<Token> ids = BaseGolden(GetParam()).prompts[5].ids;
  const std::vector<float> expected = FeedInChunks(one, ids, {1, 64, 20});
  EXPECT_EQ(FeedInChunks(two, ids, {1, 64, 20}), expected);
  EXPECT_EQ(FeedInChunks(five, ids, {1, 64, 20}), expected);
}

TEST_P(ForwardCpuTest, DecodeAmongManyIsDecodeAlone) {
  SKIP_WITHOUT_GOLDEN();
  constexpr int kSteps = 8;
  TestRunner runner(ModelDir(GetParam()), NewBackend("cpu", 2));
  const Golden golden = BaseGolden(GetParam());

  std::vector<std::vector<std::vector<float>>> alone;  // [prompt][step]
  for (const GoldenPrompt& p : golden.prompts) {
    TestSequence sequence = runner.NewSequence(PositionsOf(p));
    std::vector<std::vector<float>> steps = {runner.Feed(sequence, p.ids)};
    for (int i = 0; i < kSteps; ++i) {
      steps.push_back(
          runner.Feed(sequence, {p.greedy_ids[static_cast<size_t>(i)]}));
    }
    alone.push_back(std::move(steps));
  }

  // Each prompt three times over; one starts a step after the other, so every
  // step mixes prefill with decode.
  const size_t count = 3 * golden.prompts.size();
  std::vector<TestSequence> sequences;
  for (size_t i = 0; i < count; ++i) {
    sequences.push_back(runner.NewSequence(
        PositionsOf(golden.prompts[i % golden.prompts.size()])));
  }
  for (size_t t = 0; t < count + kSteps + 1; ++t) {
    std::vector<TestRunner::Rows> rows;
    std::vector<std::pair<size_t, size_t>> who;  // (prompt, step)
    for (size_t i = 0; i < count && i <= t; ++i) {
      const size_t step = t - i;
      if (step > kSteps) continue;
      const size_t prompt = i % golden.prompts.size();
      const GoldenPrompt& p = golden.prompts[prompt];
      rows.push_back(
          {&sequences[i],
           step == 0 ? p.ids : std::vector<Token>{p.greedy_ids[step - 1]}, 1});
      who.emplace_back(prompt, step);
    }
    const std::vector<std::vector<float>> logits = runner.Step(rows);
    for (size_t i = 0; i < who.size(); ++i) {
      ASSERT_EQ(logits[i], alone[who[i].first][who[i].second])
          << "prompt " << who[i].first << " step " << who[i].second;
    }
  }
}

TEST_P(ForwardCpuTest, ACopiedBlockIsAsGoodAsTheFirst) {
  SKIP_WITHOUT_GOLDEN();
  TestRunner runner(ModelDir(GetParam()), NewBackend("cpu"));
  const GoldenPrompt p = BaseGolden(GetParam()).prompts[3];
  ASSERT_EQ(p.ids.size(), 33u);
  TestSequence first = runner.NewSequence(PositionsOf(p));
  runner.Feed(first, p.ids);
  // The fork shares the full block and gets a copy of the last one.
  TestSequence fork = runner.NewSequence(PositionsOf(p));
  const int32_t fresh = fork.blocks[1];
  fork.blocks = {first.blocks[0], fresh};
  fork.length = first.length;
  const std::vector<float> copied = runner.Step({{&fork, {p.greedy_ids[0]}, 1}},
                                                {{first.blocks[1], fresh}})[0];
  EXPECT_EQ(copied, runner.Feed(first, {p.greedy_ids[0]}));
}

TEST_P(ForwardCpuTest, KvCacheInBf16StaysClose) {
  SKIP_WITHOUT_GOLDEN();
  TestRunner runner(ModelDir(GetParam()), NewBackend("cpu"), {}, DType::kBF16);
  const Golden golden = BaseGolden(GetParam());
  LogitError error;
  for (const GoldenPrompt& p : golden.prompts) {
    TestSequence sequence = runner.NewSequence(PositionsOf(p));
    const std::vector<float> logits =
        runner.Feed(sequence, p.ids, p.logit_rows);
    error.Add(logits.data(), p.logits.data(),
              static_cast<int64_t>(p.logits.size()), golden.logits_rms);
  }
  EXPECT_LE(error.rms(), 0.05);
  EXPECT_GT(error.max, 1e-4);  // it really is bf16
}

TEST_P(ForwardCpuTest, WeightsRoundedToBf16StayClose) {
  SKIP_WITHOUT_GOLDEN();
  ModelOptions options;
  options.dtype = DType::kBF16;
  TestRunner runner(ModelDir(GetParam()), NewBackend("cpu"), options);
  EXPECT_EQ(runner.model().dtype(), DType::kBF16);
  const Golden golden = BaseGolden(GetParam());
  LogitError error;
  for (const GoldenPrompt& p : golden.prompts) {
    TestSequence sequence = runner.NewSequence(PositionsOf(p));
    const std::vector<float> logits =
        runner.Feed(sequence, p.ids, p.logit_rows);
    error.Add(logits.data(), p.logits.data(),
              static_cast<int64_t>(p.logits.size()), golden.logits_rms);
  }
  EXPECT_LE(error.max, 0.25);
  EXPECT_LE(error.rms(), 0.03);
}

INSTANTIATE_TEST_SUITE_P(Models, ForwardCpuTest, ::testing::ValuesIn(kModels),
                         [](const auto& test) { return TestName(test.param); });

TEST(ForwardTest, NoRowsAndNoLogitRowsAreNothing) {
  SKIP_WITHOUT_GOLDEN();
  TestRunner runner(ModelDir("llama-gqa-tied"), NewBackend("cpu"));
  EXPECT_TRUE(runner.Step({}).empty());
  TestSequence sequence = runner.NewSequence(32);
  EXPECT_TRUE(runner.Feed(sequence, {1, 2, 3}, 0).empty());
  EXPECT_EQ(sequence.length, 3);
}

}  // namespace
}  // namespace lorikeet
