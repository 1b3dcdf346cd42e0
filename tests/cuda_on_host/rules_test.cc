// The emulated device reports the fault of every rule, by file, line and thread
// where there is one, and nothing where the rule is kept.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "absl/strings/match.h"
#include "tests/cuda_on_host/options.h"
#include "tests/cuda_on_host/rule_kernels.h"

namespace cuda_on_host {
namespace {

using ::testing::HasSubstr;

class RulesTest : public ::testing::TestWithParam<Options::Schedule> {
 protected:
  RulesTest() {
    options() = Options();
    options().schedule = GetParam();
    TakeFindings();
  }
  ~RulesTest() override { options() = Options(); }
};

TEST_P(RulesTest, KeptRulesGiveNoFinding) {
  for (const Rule& rule : Rules()) {
    SCOPED_TRACE(rule.name);
    for (const auto streams :
         {Options::Streams::kEager, Options::Streams::kRandom}) {
      options().streams = streams;
      EXPECT_TRUE(rule.run(/*is_faulty=*/false));
      for (const Finding& f : TakeFindings()) {
        ADD_FAILURE() << f.kind << ": " << f.text;
      }
    }
  }
}

TEST_P(RulesTest, BrokenRulesAreReportedWithTheirPlace) {
  for (const Rule& rule : Rules()) {
    SCOPED_TRACE(rule.name);
    options().streams = rule.needs_random_streams ? Options::Streams::kRandom
                                                  : Options::Streams::kEager;
    const bool good = rule.run(/*is_faulty=*/true);
    const std::vector<Finding> findings = TakeFindings();
    if (rule.kind.empty()) {
      EXPECT_FALSE(good);
      continue;
    }
    bool is_found = false;
    std::string all;
    for (const Finding& f : findings) {
      is_found |= absl::StrContains(rule.kind, f.kind);
      all += f.kind + ": " + f.text + "\n";
    }
    EXPECT_TRUE(is_found) << "expected " << rule.kind << ", got:\n" << all;
    if (findings.empty() || rule.kind == "graph capture") continue;
    EXPECT_THAT(all, HasSubstr("rule_kernels.cu:"));
    if (rule.kind != "host access") {
      EXPECT_THAT(all, HasSubstr("thread"));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Schedules, RulesTest,
                         ::testing::Values(Options::Schedule::kInOrder,
                                           Options::Schedule::kReverse,
                                           Options::Schedule::kRandom),
                         [](const auto& p) {
                           return p.param == Options::Schedule::kInOrder
                                      ? "InOrder"
                                  : p.param == Options::Schedule::kReverse
                                      ? "Reverse"
                                      : "Random";
                         });

TEST(IntrinsicsTest, MmaMultipliesMatricesInEveryArithmetic) {
  std::vector<float> a(16 * 16), b(16 * 8);
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<float>(static_cast<int>(i * 7 % 11) - 5);
  }
  for (size_t i = 0; i < b.size(); ++i) {
    b[i] = static_cast<float>(static_cast<int>(i * 5 % 13) - 6) * 0.5f;
  }
  for (const auto mma :
       {Options::Mma::kPlain, Options::Mma::kAmpere, Options::Mma::kHopper}) {
    options().mma = mma;
    const std::vector<float> d = RunMma(a, b, 3);
    for (size_t i = 0; i < 16; ++i) {
      for (size_t j = 0; j < 8; ++j) {
        float sum = 3;
        for (size_t k = 0; k < 16; ++k) sum += a[i * 16 + k] * b[k * 8 + j];
        EXPECT_EQ(d[i * 8 + j], sum) << i << ", " << j;  // small integers
      }
    }
  }
  options().mma = Options::Mma::kPlain;
}

// 1 + 2^-25 - 1: kept by nobody's f32 sum; the tensor cores cut it off as well.
TEST(IntrinsicsTest, TensorCoresCutSmallTermsOff) {
  std::vector<float> a(16 * 16), b(16 * 8);
  a[0] = 1;
  a[1] = 0x1p-25f;
  a[2] = -1;
  for (size_t k = 0; k < 3; ++k) b[k * 8] = 1;
  options().mma = Options::Mma::kAmpere;  // 24 bits
  EXPECT_EQ(RunMma(a, b, 0)[0], 0);
  options().mma = Options::Mma::kHopper;  // 25 bits
  EXPECT_EQ(RunMma(a, b, 0)[0], 0x1p-25f);
  options().mma = Options::Mma::kPlain;
}

// The table of the PTX manual, for width 8.
TEST(IntrinsicsTest, ShufflesStayInTheirSubgroup) {
  const std::vector<int> out = RunShuffles();
  for (int lane = 0; lane < 32; ++lane) {
    const int base = lane / 8 * 8;
    const size_t i = static_cast<size_t>(lane);
    EXPECT_EQ(out[i], base + (lane + 3) % 8);
    EXPECT_EQ(out[32 + i], lane - 3 < base ? lane : lane - 3);
    EXPECT_EQ(out[64 + i], lane + 3 >= base + 8 ? lane : lane + 3);
    EXPECT_EQ(out[96 + i], base + ((lane - base) ^ 5));
  }
}

TEST(IntrinsicsTest, ATransposedLoadGivesColumns) {
  const std::vector<int> out = RunTransposedLoad();
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < 4; ++m) {
      for (int j = 0; j < 2; ++j) {
        const int row = m * 8 + lane % 4 * 2 + j;
        EXPECT_EQ(out[static_cast<size_t>((lane * 4 + m) * 2 + j)],
                  row * 8 + lane / 4);
      }
    }
  }
}

TEST(OptionsTest, AreReadFromAList) {
  Options o;
  ParseOptions("schedule=random,seed=17,streams=random,mma=hopper,perturb", &o);
  EXPECT_EQ(o.schedule, Options::Schedule::kRandom);
  EXPECT_EQ(o.streams, Options::Streams::kRandom);
  EXPECT_EQ(o.mma, Options::Mma::kHopper);
  EXPECT_EQ(o.seed, 17u);
  EXPECT_TRUE(o.perturb);
  EXPECT_EXIT(ParseOptions("shedule=random", &o), ::testing::ExitedWithCode(2),
              "shedule");
}

}  // namespace
}  // namespace cuda_on_host
