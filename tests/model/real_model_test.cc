// A real model of 135 million parameters against the answers of transformers.

#include <cstdio>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/thread_pool.h"
#include "gtest/gtest.h"
#include "tests/model/test_runner.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

using testing::GoldenPrompt;
using testing::Greedy;
using testing::LogitError;
using testing::TestSequence;

TEST(RealModelTest, LogitsAndGreedyTokensAreThoseOfTransformers) {
  const std::string dir = testing::ModelsDir() + "/smollm2-135m-instruct";
  PosixFileSystem fs;
  if (!fs.FileExists(dir + "/config.json")) {
    GTEST_SKIP() << "skipped: no model smollm2-135m-instruct";
  }
  if (testing::SharedDir().empty()) {
    GTEST_SKIP() << "skipped: no shared golden data";
  }
  const auto golden = testing::ReadGolden(
      testing::SharedDir() + "/golden/smollm2/golden/base.safetensors");
  ASSERT_TRUE(golden.ok()) << golden.status();

  const SystemClock clock;
  const absl::Duration start = clock.Now();
  testing::TestRunner runner(dir, testing::NewBackend("cpu", AvailableCores()));
  std::printf("loaded %.0f MB in %.2f s\n",
              static_cast<double>(runner.model().weight_bytes()) / 1e6,
              absl::ToDoubleSeconds(clock.Now() - start));
  ASSERT_EQ(golden->vocab, runner.vocab());

  LogitError error;
  for (const GoldenPrompt& p : golden->prompts) {
    TestSequence sequence = runner.NewSequence(
        static_cast<int64_t>(p.ids.size() + p.greedy_ids.size()));
    std::vector<float> logits = runner.Feed(sequence, p.ids, p.logit_rows);
    error.Add(logits.data(), p.logits.data(),
              static_cast<int64_t>(p.logits.size()), golden->logits_rms);
    for (int64_t step = 0; step < p.safe_steps; ++step) {
      const size_t i = static_cast<size_t>(step);
      if (step > 0) logits = runner.Feed(sequence, {p.greedy_ids[i - 1]});
      ASSERT_EQ(Greedy(logits.data() + static_cast<int64_t>(logits.size()) -
                           golden->vocab,
                       golden->vocab),
                p.greedy_ids[i])
          << "step " << step;
    }
    if (!p.decode_logits.empty() &&
        p.safe_steps == static_cast<int64_t>(p.greedy_ids.size())) {
      error.Add(logits.data(), p.decode_logits.data(), golden->vocab,
                golden->logits_rms);
    }
  }
  std::printf("max %.2g rms %.2g of logits rms\n", error.max, error.rms());
  EXPECT_LE(error.max, 2e-4);
}

}  // namespace
}  // namespace lorikeet
