// `lorikeet run --device cuda-on-host`: the whole server on the emulated
// device, every tiny model with its adapters mixed, under several schedules,
// against transformers and peft inside the bounds of bf16 activations. A
// finding of the device makes the program fail.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file_system.h"
#include "base/json.h"
#include "tests/testing/golden.h"
#include "tests/testing/subprocess.h"

namespace lorikeet::testing {
namespace {

using ::testing::HasSubstr;

// golden/tiny/README.md section 2, the row of bf16 activations.
constexpr double kMaxRms = 0.05;
constexpr double kThinMargin = 0.15;  // of logits_rms
constexpr size_t kMaxTokens = 5;

Json ReadJson(const std::string& path) {
  PosixFileSystem fs;
  const auto text = fs.ReadFile(path, 100 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  const auto json = Json::Parse(*text);
  EXPECT_TRUE(json.ok()) << path << json.status();
  return *json;
}

struct Expected {
  double rms = 1;
  std::vector<float> logits;
  std::vector<Token> tokens;  // up to the first thin margin
};

struct Case {
  std::vector<std::string> args;
  std::string input;
  std::map<std::string, Expected> expected;
};

void AddPrompt(const Golden& golden, size_t i, const std::string& adapter,
               Case* c) {
  const GoldenPrompt& p = golden.prompts[i];
  const std::string id = absl::StrCat(adapter, "/", i);
  Expected e;
  e.rms = golden.logits_rms;
  const float* const last = p.logits_row(p.logit_rows - 1, golden.vocab);
  e.logits.assign(last, last + golden.vocab);
  for (size_t t = 0; t < kMaxTokens; ++t) {
    if (p.greedy_margins[t] < kThinMargin * golden.logits_rms) break;
    e.tokens.push_back(p.greedy_ids[t]);
  }
  Json line = Json::Object();
  line.Set("id", id);
  if (!adapter.empty()) line.Set("adapter", adapter);
  Json tokens = Json::Array();
  for (const Token t : p.ids) tokens.Append(t);
  line.Set("token_ids", std::move(tokens));
  line.Set("max_tokens", static_cast<int64_t>(kMaxTokens));
  line.Set("ignore_eos", true);
  line.Set("return_logits", true);
  c->input += line.Dump() + "\n";
  c->expected[id] = std::move(e);
}

// The base's prompts and one of each of up to `max_adapters` plain adapters.
Case MakeCase(const Json& model, const std::string& tiny, size_t max_adapters) {
  Case c;
  c.args = {LorikeetBinary(), "run",
            "--model",        JoinPath(tiny, model.Find("dir")->AsString()),
            "--device",       "cuda-on-host"};
  const auto base =
      ReadGolden(JoinPath(tiny, model.Find("golden")->AsString()));
  EXPECT_TRUE(base.ok()) << base.status();
  for (size_t i = 0; i < base->prompts.size(); ++i) AddPrompt(*base, i, "", &c);
  size_t count = 0;
  for (const Json& adapter : model.Find("adapters")->items()) {
    if (!adapter.Find("features")->items().empty()) continue;
    if (count++ == max_adapters) break;
    const std::string& name = adapter.Find("name")->AsString();
    c.args.push_back("--adapter");
    c.args.push_back(absl::StrCat(
        name, "=", JoinPath(tiny, adapter.Find("dir")->AsString())));
    const auto golden =
        ReadGolden(JoinPath(tiny, adapter.Find("golden")->AsString()));
    EXPECT_TRUE(golden.ok()) << golden.status();
    AddPrompt(*golden, 1 + count % 2, name, &c);
  }
  return c;
}

void CompareWithGolden(const std::string& name, const Case& c,
                       const std::string& out) {
  LogitError error;
  size_t seen = 0, tokens = 0;
  for (const absl::string_view line :
       absl::StrSplit(out, '\n', absl::SkipEmpty())) {
    const auto json = Json::Parse(line);
    ASSERT_TRUE(json.ok()) << json.status();
    const std::string& id = json->Find("id")->AsString();
    const Expected& e = c.expected.at(id);
    std::vector<float> logits;
    for (const Json& x : json->Find("logits")->items()) {
      logits.push_back(static_cast<float>(x.AsDouble()));
    }
    ASSERT_EQ(logits.size(), e.logits.size()) << id;
    error.Add(logits.data(), e.logits.data(),
              static_cast<int64_t>(logits.size()), e.rms);
    const auto& ids = json->Find("token_ids")->items();
    ASSERT_GE(ids.size(), e.tokens.size()) << id;
    for (size_t i = 0; i < e.tokens.size(); ++i, ++tokens) {
      EXPECT_EQ(ids[i].AsInt(), e.tokens[i]) << name << " " << id << " " << i;
    }
    ++seen;
  }
  EXPECT_EQ(seen, c.expected.size());
  EXPECT_LE(error.rms(), kMaxRms) << name;
  std::printf("%-22s %3zu answers, %3zu tokens, RMS %.4f of rms, max %.3f\n",
              name.c_str(), seen, tokens, error.rms(), error.max);
}

class CudaOnHostTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (TinyDir().empty()) GTEST_SKIP() << "skipped: no shared golden data";
  }
  void TearDown() override {
    unsetenv("CUDA_ON_HOST");
    unsetenv("LORIKEET_CUDA_ON_HOST_BUILD");
  }
  SubprocessResult Run(const Case& c, const std::string& build,
                       const std::string& options,
                       const std::vector<std::string>& flags = {}) {
    setenv("LORIKEET_CUDA_ON_HOST_BUILD", build.c_str(), 1);
    setenv("CUDA_ON_HOST", options.c_str(), 1);
    std::vector<std::string> args = c.args;
    args.insert(args.end(), flags.begin(), flags.end());
    return RunSubprocess(args, c.input);
  }
  const Json Manifest() { return ReadJson(TinyDir() + "/manifest.json"); }
};

TEST_F(CudaOnHostTest, TinyModelsWithAdaptersMixedMatchPeft) {
  const Json manifest = Manifest();
  int seed = 1;
  for (const Json& model : manifest.Find("models")->items()) {
    const std::string& name = model.Find("name")->AsString();
    const Case c = MakeCase(model, TinyDir(), 40);
    const SubprocessResult r = Run(
        c, "fast",
        absl::StrCat("schedule=random,streams=random,perturb,seed=", seed++));
    ASSERT_EQ(r.exit_code, 0) << name << r.err;
    CompareWithGolden(name, c, r.out);
  }
}

// Few slots: adapters come and go while others' steps run.
TEST_F(CudaOnHostTest, TheCheckerFindsNothingWithEvictionsInBetween) {
  const Json manifest = Manifest();
  const Json& model = manifest.Find("models")->items()[0];
  const Case c = MakeCase(model, TinyDir(), 6);
  for (const std::string options :
       {"streams=random,seed=2", "schedule=reverse,mma=ampere",
        "schedule=random,streams=random,mma=hopper,seed=4"}) {
    const SubprocessResult r = Run(c, "checked", options, {"--max-loras", "2"});
    ASSERT_EQ(r.exit_code, 0) << options << r.err;
    CompareWithGolden(options, c, r.out);
  }
}

TEST_F(CudaOnHostTest, WhatIsMissingIsSaid) {
  const Json manifest = Manifest();
  const Case c = MakeCase(manifest.Find("models")->items()[0], TinyDir(), 0);
  const std::pair<const char*, const char*> cases[] = {
      {"devices=0", "no GPU"},
      {"sm=75", "the GPU is sm_75, at least sm_80 is needed"},
      {"memory=40000000", "out of device memory"}};
  for (const auto& [options, message] : cases) {
    const SubprocessResult r = Run(c, "fast", options);
    EXPECT_NE(r.exit_code, 0) << options;
    EXPECT_THAT(r.err, HasSubstr(message));
    EXPECT_EQ(r.out, "");
  }
  const SubprocessResult r = Run(c, "absent", "");
  EXPECT_NE(r.exit_code, 0);
  EXPECT_THAT(r.err, HasSubstr("there is no CUDA backend at"));
}

TEST_F(CudaOnHostTest, AFaultOfTheDeviceGivesErrorsAndNoTokens) {
  const Json manifest = Manifest();
  const Case c = MakeCase(manifest.Find("models")->items()[0], TinyDir(), 0);
  const SubprocessResult r = Run(c, "fast", "fault=30");
  EXPECT_NE(r.exit_code, 0);
  EXPECT_THAT(r.err, HasSubstr("illegal memory access"));
  EXPECT_EQ(r.out, "");
}

}  // namespace
}  // namespace lorikeet::testing
