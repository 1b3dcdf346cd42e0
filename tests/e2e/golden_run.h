// Golden answers as lines for `lorikeet run`, and what must come out.
//
// Plain data and functions for tests; failures are gtest's.

#ifndef LORIKEET_TESTS_E2E_GOLDEN_RUN_H_
#define LORIKEET_TESTS_E2E_GOLDEN_RUN_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/token.h"
#include "tests/testing/subprocess.h"

namespace lorikeet::testing {

// golden/tiny/README.md section 2: weights as stored, float32 arithmetic.
inline constexpr double kMaxError = 2e-4;
// The same section: merged weights rounded once to bf16.
inline constexpr double kMaxErrorMergedBF16 = 0.2;
// Adapters in 8 bits, half of it; 0.054 is the worst that was seen.
inline constexpr double kMaxErrorInt8Adapters = 0.1;

// One set of goldens: a model and its adapters.
struct GoldenRun {
  std::string name;
  std::string model_dir;
  std::vector<std::string> adapter_flags;
  // Input lines, and by id what must come out.
  std::string input;
  struct Expected {
    double rms = 1;
    std::vector<float> logits;
    std::vector<Token> tokens;
    std::vector<float> decode_logits;
  };
  std::map<std::string, Expected> expected;
};

// Who answers: `parts` [[adapter, weight], ...], or `adapter`, "" = the base.
struct Who {
  std::string adapter;
  std::vector<std::pair<std::string, double>> parts;
};

Json ReadJson(const std::string& path);

// One line of input.
std::string RequestLine(const std::string& id, const Who& who,
                        const std::vector<Token>& ids, size_t max_tokens);
// The parts of a composition of a manifest.
Who WhoOfMix(const Json& mix);

// Adds the prompts of a golden file as requests `name`/0, `name`/1, ...
void AddGolden(const std::string& path, const std::string& name, const Who& who,
               GoldenRun* run);
// A model of a manifest with all its adapters and compositions.
GoldenRun MakeGoldenRun(const Json& model, const std::string& golden_dir,
                        const std::string& model_dir);

// Runs `lorikeet run` on `input` with the run's model and adapters.
SubprocessResult RunGolden(const GoldenRun& run, const std::string& input,
                           const std::vector<std::string>& flags);
// Every request has its answer; logits differ by at most `max_error` of their
// RMS; tokens are compared unless more than kMaxError is allowed.
void CompareWithGolden(const GoldenRun& run, const std::string& out,
                       double max_error = kMaxError);

}  // namespace lorikeet::testing

#endif  // LORIKEET_TESTS_E2E_GOLDEN_RUN_H_
