// The promise of docs/ARCHITECTURE.md, "Order of arithmetic", over random
// schedules: for every SIMD target and every storage and compute dtype a
// sequence has the same logits, bit for bit, alone on one thread and in chunks
// among others on three. On the demo's base model, which is always there.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "base/random.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_ops.h"
#include "tests/model/test_runner.h"

namespace lorikeet {
namespace {

using testing::TestRunner;
using testing::TestSequence;

struct Numbers {
  const char* name;
  DType storage;
  DType compute;
};

constexpr Numbers kNumbers[] = {{"f32", DType::kF32, DType::kF32},
                                {"bf16", DType::kBF16, DType::kF32},
                                {"f16", DType::kF16, DType::kF32},
                                {"int8", DType::kI8, DType::kF32},
                                {"bf16_dot", DType::kBF16, DType::kBF16}};

std::string DemoBase() {
  const char* dir = std::getenv("LORIKEET_SOURCE_DIR");
  return std::string(dir != nullptr ? dir : ".") + "/demo/base";
}

class InvarianceTest
    : public ::testing::TestWithParam<std::tuple<std::string, Numbers>> {
 protected:
  // Null if the target has no such dot products.
  static std::unique_ptr<TestRunner> NewRunner(int threads) {
    const auto& [target, numbers] = GetParam();
    testing::Backend backend;
    backend.threads = std::make_unique<ThreadPool>(threads);
    auto ops = CreateCpuOps(*backend.threads, {target, numbers.compute});
    if (!ops.ok()) return nullptr;
    backend.ops = *std::move(ops);
    ModelOptions options;
    options.dtype = numbers.storage;
    return std::make_unique<TestRunner>(DemoBase(), std::move(backend),
                                        options);
  }
};

// What is fed of one sequence so far, and the logits of each of its rows.
struct Progress {
  std::vector<Token> tokens;
  TestSequence sequence;
  size_t fed = 0;
  std::vector<float> logits;
};

std::vector<Progress> NewSequences(TestRunner& runner, uint64_t seed) {
  Rng rng(seed);
  std::vector<Progress> all(7);
  for (Progress& p : all) {
    p.tokens.resize(1 + rng.Below(90));
    for (Token& token : p.tokens) {
      token =
          static_cast<Token>(rng.Below(static_cast<uint64_t>(runner.vocab())));
    }
    p.sequence = runner.NewSequence(static_cast<int64_t>(p.tokens.size()));
  }
  return all;
}

TEST_P(InvarianceTest, ARowHasTheSameBitsAloneAndInAnyBatch) {
  const auto alone_runner = NewRunner(1);
  if (alone_runner == nullptr) GTEST_SKIP() << "no bf16 dot products";
  const auto mixed_runner = NewRunner(3);
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    std::vector<Progress> alone = NewSequences(*alone_runner, seed);
    for (Progress& p : alone) {
      p.logits = alone_runner->Feed(p.sequence, p.tokens,
                                    static_cast<int64_t>(p.tokens.size()));
    }
    std::vector<Progress> mixed = NewSequences(*mixed_runner, seed);
    Rng rng(seed + 100);
    for (bool more = true; more;) {
      more = false;
      std::vector<TestRunner::Rows> rows;
      std::vector<Progress*> who;
      for (Progress& p : mixed) {
        const size_t left = p.tokens.size() - p.fed;
        if (left == 0) continue;
        more = true;
        if (rng.Below(3) == 0) continue;
        const size_t count = std::min<size_t>(left, 1 + rng.Below(40));
        const auto begin =
            p.tokens.begin() + static_cast<std::ptrdiff_t>(p.fed);
        rows.push_back({&p.sequence,
                        {begin, begin + static_cast<std::ptrdiff_t>(count)},
                        static_cast<int64_t>(count)});
        who.push_back(&p);
        p.fed += count;
      }
      const auto logits = mixed_runner->Step(rows);
      for (size_t i = 0; i < who.size(); ++i) {
        who[i]->logits.insert(who[i]->logits.end(), logits[i].begin(),
                              logits[i].end());
      }
    }
    for (size_t i = 0; i < alone.size(); ++i) {
      ASSERT_EQ(mixed[i].logits, alone[i].logits)
          << "seed " << seed << ", sequence " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Targets, InvarianceTest,
    ::testing::Combine(::testing::ValuesIn(SupportedCpuTargets()),
                       ::testing::ValuesIn(kNumbers)),
    [](const auto& test) {
      return std::get<0>(test.param) + "_" + std::get<1>(test.param).name;
    });

// int8 is the same on every target with fused multiply-adds only as far as the
// rest of the pass is, so what is asked for here is closeness.
TEST(Int8Test, LogitsStayCloseToThoseOfTheFile) {
  testing::Backend exact = testing::NewBackend("cpu", 2);
  testing::Backend quantized = testing::NewBackend("cpu", 2);
  ModelOptions options;
  options.dtype = DType::kI8;
  TestRunner a(DemoBase(), std::move(exact));
  TestRunner b(DemoBase(), std::move(quantized), options);
  std::vector<Progress> p = NewSequences(a, 5);
  std::vector<Progress> q = NewSequences(b, 5);
  double square = 0;
  double error = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const auto x = a.Feed(p[i].sequence, p[i].tokens);
    const auto y = b.Feed(q[i].sequence, q[i].tokens);
    for (size_t j = 0; j < x.size(); ++j) {
      square += static_cast<double>(x[j]) * x[j];
      error += static_cast<double>(x[j] - y[j]) * (x[j] - y[j]);
    }
  }
  EXPECT_LT(std::sqrt(error / square), 0.05);
  EXPECT_GT(error, 0);
}

}  // namespace
}  // namespace lorikeet
