// `lorikeet run --device cuda-on-host`: the whole server on the emulated
// device, every tiny model with its adapters mixed, under several schedules,
// against transformers and peft inside the bounds of bf16 activations. A
// finding of the device makes the program fail. $LORIKEET_TEST_DEVICE=cuda runs
// those that compare with goldens on a GPU.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file_system.h"
#include "base/json.h"
#include "tests/e2e/golden_run.h"
#include "tests/testing/golden.h"
#include "tests/testing/subprocess.h"

namespace lorikeet::testing {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

// golden/tiny/README.md section 2, the row of bf16 activations.
constexpr double kMaxRms = 0.05;
constexpr double kThinMargin = 0.15;  // of logits_rms
constexpr size_t kMaxTokens = 5;

// Prompt `i` of a golden file; tokens count up to the first thin margin.
void AddPrompt(const Golden& golden, size_t i, const std::string& name,
               const Who& who, GoldenRun* run) {
  const GoldenPrompt& p = golden.prompts[i];
  const std::string id = absl::StrCat(name, "/", i);
  GoldenRun::Expected e;
  e.rms = golden.logits_rms;
  const float* const last = p.logits_row(p.logit_rows - 1, golden.vocab);
  e.logits.assign(last, last + golden.vocab);
  for (size_t t = 0; t < kMaxTokens; ++t) {
    if (p.greedy_margins[t] < kThinMargin * golden.logits_rms) break;
    e.tokens.push_back(p.greedy_ids[t]);
  }
  run->input += RequestLine(id, who, p.ids, kMaxTokens);
  run->expected[id] = std::move(e);
}

Golden ReadGoldenOf(const std::string& dir, const Json& entry) {
  const auto golden =
      ReadGolden(JoinPath(dir, entry.Find("golden")->AsString()));
  EXPECT_TRUE(golden.ok()) << golden.status();
  return *golden;
}

// Up to `max_prompts` prompts of the base, and one of each of up to
// `max_adapters` adapters and of the compositions of them all. The goldens and
// adapters are below `dir`.
GoldenRun MakeRunOf(const Json& model, const std::string& dir,
                    const std::string& model_dir, size_t max_prompts,
                    size_t max_adapters) {
  GoldenRun run;
  run.name = model.Find("name")->AsString();
  run.model_dir = model_dir;
  const Golden base = ReadGoldenOf(dir, model);
  for (size_t i = 0; i < std::min(max_prompts, base.prompts.size()); ++i) {
    AddPrompt(base, i, "", {}, &run);
  }
  const auto& adapters = model.Find("adapters")->items();
  size_t turn = 0;
  for (const Json& adapter : adapters) {
    if (turn == max_adapters) return run;
    const std::string& name = adapter.Find("name")->AsString();
    run.adapter_flags.push_back("--adapter");
    run.adapter_flags.push_back(absl::StrCat(
        name, "=", JoinPath(dir, adapter.Find("dir")->AsString())));
    const Golden golden = ReadGoldenOf(dir, adapter);
    AddPrompt(golden, ++turn % golden.prompts.size(), name, {name, {}}, &run);
  }
  if (const Json* mixes = model.Find("mixes")) {
    for (const Json& mix : mixes->items()) {
      AddPrompt(ReadGoldenOf(dir, mix), 1,
                "mix-" + mix.Find("name")->AsString(), WhoOfMix(mix), &run);
    }
  }
  return run;
}

// Of a tiny model.
GoldenRun MakeRun(const Json& model, size_t max_adapters) {
  return MakeRunOf(model, TinyDir(),
                   JoinPath(TinyDir(), model.Find("dir")->AsString()),
                   /*max_prompts=*/100, max_adapters);
}

void CompareLogitsAndTokens(const std::string& name, const GoldenRun& run,
                            const std::string& out) {
  LogitError error;
  size_t seen = 0, tokens = 0;
  for (const absl::string_view line :
       absl::StrSplit(out, '\n', absl::SkipEmpty())) {
    const auto json = Json::Parse(line);
    ASSERT_TRUE(json.ok()) << json.status();
    const std::string& id = json->Find("id")->AsString();
    const GoldenRun::Expected& e = run.expected.at(id);
    std::vector<float> logits;
    for (const Json& x : json->Find("logits")->items()) {
      logits.push_back(static_cast<float>(x.AsDouble()));
    }
    ASSERT_EQ(logits.size(), e.logits.size()) << id;
    LogitError one;
    for (LogitError* const all : {&error, &one}) {
      all->Add(logits.data(), e.logits.data(),
               static_cast<int64_t>(logits.size()), e.rms);
    }
    EXPECT_LE(one.rms(), kMaxRms) << name << " " << id;
    const auto& ids = json->Find("token_ids")->items();
    ASSERT_GE(ids.size(), e.tokens.size()) << id;
    for (size_t i = 0; i < e.tokens.size(); ++i, ++tokens) {
      EXPECT_EQ(ids[i].AsInt(), e.tokens[i]) << name << " " << id << " " << i;
    }
    ++seen;
  }
  EXPECT_EQ(seen, run.expected.size());
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
  SubprocessResult Run(const GoldenRun& run, const std::string& build,
                       const std::string& options,
                       std::vector<std::string> flags = {}) {
    setenv("LORIKEET_CUDA_ON_HOST_BUILD", build.c_str(), 1);
    setenv("CUDA_ON_HOST", options.c_str(), 1);
    const char* const device = std::getenv("LORIKEET_TEST_DEVICE");
    flags.insert(flags.end(),
                 {"--device", device == nullptr ? "cuda-on-host" : device});
    return RunGolden(run, run.input, flags);
  }
  Json Manifest() { return ReadJson(TinyDir() + "/manifest.json"); }
};

TEST_F(CudaOnHostTest, TinyModelsWithAdaptersMixedMatchPeft) {
  const Json manifest = Manifest();
  int seed = 1;
  for (const Json& model : manifest.Find("models")->items()) {
    const std::string& name = model.Find("name")->AsString();
    const GoldenRun c = MakeRun(model, 40);
    const SubprocessResult r = Run(
        c, "fast",
        absl::StrCat("schedule=random,streams=random,perturb,seed=", seed++));
    ASSERT_EQ(r.exit_code, 0) << name << r.err;
    CompareLogitsAndTokens(name, c, r.out);
  }
}

// $LORIKEET_ALL_GOLDENS=1: all prompts of the base, not one.
TEST_F(CudaOnHostTest, TheRealModelWithItsAdaptersMixedMatchesPeft) {
  const std::string dir = SharedDir() + "/golden/smollm2";
  PosixFileSystem fs;
  if (ModelsDir().empty() || !fs.FileExists(dir + "/manifest.json") ||
      !fs.IsDirectory(ModelsDir() + "/smollm2-135m-instruct")) {
    GTEST_SKIP() << "skipped: no real model or its golden data";
  }
  const Json manifest = ReadJson(dir + "/manifest.json");
  const Json& model = manifest.Find("models")->items()[0];
  const GoldenRun c = MakeRunOf(
      model, dir, JoinPath(ModelsDir(), model.Find("prepared")->AsString()),
      std::getenv("LORIKEET_ALL_GOLDENS") == nullptr ? 1 : 100,
      /*max_adapters=*/40);
  const SubprocessResult r = Run(c, "fast", "streams=random,seed=3");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  CompareLogitsAndTokens(c.name, c, r.out);
}

// Few slots: adapters come and go while others' steps run. Among those of the
// second model are gains, and weights, norms, rows and tables of their own.
TEST_F(CudaOnHostTest, TheCheckerFindsNothingWithEvictionsInBetween) {
  const std::pair<const char*, std::vector<const char*>> cases[] = {
      {"llama-gqa-tied",
       {"streams=random,seed=2", "schedule=reverse,mma=ampere"}},
      {"llama-sharded-f32",
       {"schedule=random,streams=random,mma=hopper,seed=4"}}};
  const Json manifest = Manifest();
  for (const Json& model : manifest.Find("models")->items()) {
    for (const auto& [name, options] : cases) {
      if (model.Find("name")->AsString() != name) continue;
      const GoldenRun c = MakeRun(model, 9);
      for (const char* const o : options) {
        const SubprocessResult r = Run(c, "checked", o, {"--max-loras", "2"});
        ASSERT_EQ(r.exit_code, 0) << o << r.err;
        CompareLogitsAndTokens(absl::StrCat(name, " ", o), c, r.out);
      }
    }
  }
}

// Answers by id: without the times.
std::map<std::string, std::string> AnswersOf(const std::string& out) {
  std::map<std::string, std::string> answers;
  for (const absl::string_view line :
       absl::StrSplit(out, '\n', absl::SkipEmpty())) {
    const auto json = Json::Parse(line);
    EXPECT_TRUE(json.ok()) << json.status();
    const size_t from = line.find("\"logits\"");
    EXPECT_NE(from, absl::string_view::npos) << line;
    answers[json->Find("id")->AsString()] =
        absl::StrCat(json->Find("text")->AsString(), line.substr(from));
  }
  return answers;
}

// Rows are merged on the device, packed there, and answer beside others.
TEST_F(CudaOnHostTest, MergedVariantsMatchPeft) {
  const Json manifest = Manifest();
  for (const Json& model : manifest.Find("models")->items()) {
    if (model.Find("name")->AsString() != "llama-gqa-tied") continue;
    const GoldenRun c = MakeRun(model, 9);
    const SubprocessResult r =
        Run(c, "checked", "streams=random,seed=8",
            {"--merge", "always", "--max-merged", "2", "--max-loras", "2"});
    ASSERT_EQ(r.exit_code, 0) << r.err;
    CompareLogitsAndTokens("merged", c, r.out);
    EXPECT_THAT(r.out, HasSubstr("\"variant\": \"merged\""));
  }
}

// What steps cost is measured on the device, with matrices that lie there.
TEST_F(CudaOnHostTest, AutoMeasuresAndAnswers) {
  const Json manifest = Manifest();
  for (const Json& model : manifest.Find("models")->items()) {
    if (model.Find("name")->AsString() != "llama-gqa-tied") continue;
    const GoldenRun c = MakeRun(model, 9);
    const SubprocessResult r =
        Run(c, "checked", "streams=random,seed=9", {"--merge", "auto"});
    ASSERT_EQ(r.exit_code, 0) << r.err;
    CompareLogitsAndTokens("auto", c, r.out);
    EXPECT_THAT(r.err, Not(HasSubstr("cannot be measured")));
  }
}

// The demo's adapters, each asked once under `flags` with so many bytes of the
// device.
SubprocessResult RunDemo(int64_t memory_bytes,
                         const std::vector<std::string>& flags) {
  setenv("LORIKEET_CUDA_ON_HOST_BUILD", "fast", 1);
  const std::string demo = SourceDir() + "/demo";
  std::vector<std::string> args = {LorikeetBinary(),
                                   "run",
                                   "--model",
                                   demo + "/base",
                                   "--device",
                                   "cuda-on-host",
                                   "--kv-cache-bytes",
                                   "1MiB",
                                   "--device-memory-bytes",
                                   absl::StrCat(memory_bytes)};
  args.insert(args.end(), flags.begin(), flags.end());
  std::string input;
  for (const char* const name :
       {"caesar", "double", "ends", "length", "reverse", "upper"}) {
    args.push_back("--adapter");
    args.push_back(absl::StrCat(name, "=", demo, "/adapters/", name));
    absl::StrAppend(&input, R"({"id": ")", name,
                    R"(", "prompt": "Word: parrot\nAnswer:", "adapter": ")",
                    name, "\"}\n");
  }
  SubprocessResult r = RunSubprocess(args, input);
  unsetenv("LORIKEET_CUDA_ON_HOST_BUILD");
  return r;
}

// From a device that holds little more than the base to one that holds all.
TEST(DeviceMemoryTest, WhereItEndsFewerAreMergedOrRequestsAreToldSo) {
  const std::vector<std::string> flags = {"--merge", "always", "--max-merged",
                                          "6"};
  const SubprocessResult all = RunDemo(int64_t{1} << 30, flags);
  ASSERT_EQ(all.exit_code, 0) << all.err;
  size_t with_fewer = 0, with_errors = 0;
  for (int64_t memory = 39'000'000; memory <= 52'000'000; memory += 1'000'000) {
    const SubprocessResult r = RunDemo(memory, flags);
    for (const absl::string_view line :
         absl::StrSplit(r.out, '\n', absl::SkipEmpty())) {
      EXPECT_THAT(all.out, HasSubstr(line)) << memory;
    }
    if (r.exit_code == 0) {
      EXPECT_EQ(r.out, all.out) << memory;
      if (absl::StrContains(r.err, "fewer adapters are merged")) ++with_fewer;
      continue;
    }
    ++with_errors;
    EXPECT_EQ(r.exit_code, 1) << memory << r.err;
    EXPECT_THAT(r.err, AnyOf(HasSubstr("out of device memory"),
                             HasSubstr("fit into the device's memory")))
        << memory;
  }
  EXPECT_GT(with_fewer, 0u);
  EXPECT_GT(with_errors, 0u);
}

TEST(DeviceMemoryTest, WithoutRoomToMeasureNothingIsMerged) {
  size_t unmeasured = 0;
  for (int64_t memory = 40'000'000; memory <= 44'000'000; memory += 250'000) {
    const SubprocessResult r = RunDemo(memory, {"--merge", "auto"});
    EXPECT_THAT(r.exit_code, AnyOf(0, 1)) << memory << r.err;
    if (!absl::StrContains(r.err, "cannot be measured")) continue;
    ++unmeasured;
    EXPECT_THAT(r.out, Not(HasSubstr("merged")));
  }
  EXPECT_GT(unmeasured, 0u);
}

// Though cuBLASLt, were it asked, would cut K in other ways each time.
TEST_F(CudaOnHostTest, BatchInvariantAnswersAreTheSameAloneAndMixed) {
  const Json manifest = Manifest();
  for (const Json& model : manifest.Find("models")->items()) {
    if (model.Find("name")->AsString() != "llama-gqa-tied") continue;
    const GoldenRun c = MakeRun(model, 12);
    const SubprocessResult mixed =
        Run(c, "fast", "schedule=random,streams=random,seed=5",
            {"--batch-invariant"});
    ASSERT_EQ(mixed.exit_code, 0) << mixed.err;
    CompareLogitsAndTokens("batch-invariant", c, mixed.out);
    const SubprocessResult alone =
        Run(c, "fast", "schedule=reverse,streams=random,seed=6",
            {"--batch-invariant", "--max-num-seqs", "1"});
    ASSERT_EQ(alone.exit_code, 0) << alone.err;
    const SubprocessResult chunked =
        Run(c, "fast", "schedule=random,seed=7",
            {"--batch-invariant", "--max-num-batched-tokens", "21"});
    ASSERT_EQ(chunked.exit_code, 0) << chunked.err;
    EXPECT_EQ(AnswersOf(alone.out), AnswersOf(mixed.out));
    EXPECT_EQ(AnswersOf(chunked.out), AnswersOf(mixed.out));
  }
}

// "steps" and "graph_launches" of the last line of the log.
std::pair<int, int> StepsAndGraphs(const std::string& err) {
  std::pair<int, int> counts{-1, -1};
  const size_t at = err.rfind("steps on the device");
  EXPECT_NE(at, std::string::npos) << err;
  if (at == std::string::npos) return counts;
  EXPECT_EQ(
      std::sscanf(err.c_str() + at,
                  "steps on the device steps=\"%d\" graph_launches=\"%d\"",
                  &counts.first, &counts.second),
      2)
      << err;
  return counts;
}

// All adapters of a model, with evictions, merged or not.
TEST_F(CudaOnHostTest, AReplayedStepGivesTheBitsOfAnEnqueuedOne) {
  const Json manifest = Manifest();
  for (size_t i = 0; i < manifest.Find("models")->items().size(); i += 3) {
    const GoldenRun c = MakeRun(manifest.Find("models")->items()[i], 100);
    const auto run = [&](const char* graphs, const char* order) {
      return Run(c, "fast", order,
                 {graphs, "--batch-invariant", "--log-level", "info", "--merge",
                  i % 2 == 0 ? "always" : "never", "--max-merged", "2",
                  "--max-loras", "4", "--max-num-seqs", "3"});
    };
    const SubprocessResult with =
        run("--cuda-graphs", "schedule=random,streams=random,seed=5");
    const SubprocessResult without = run("--no-cuda-graphs", "");
    ASSERT_EQ(with.exit_code, 0) << with.err;
    ASSERT_EQ(without.exit_code, 0) << without.err;
    EXPECT_TRUE(AnswersOf(with.out) == AnswersOf(without.out)) << c.name;
    EXPECT_GT(StepsAndGraphs(with.err).second, 0) << c.name;
    EXPECT_EQ(StepsAndGraphs(without.err).second, 0) << c.name;
  }
}

std::string DemoLines(const std::vector<std::string>& adapters) {
  std::string lines;
  for (const std::string& adapter : adapters) {
    absl::StrAppend(&lines, R"({"prompt": "Word: parrot\nAnswer:", )",
                    R"("max_tokens": 12, "ignore_eos": true)",
                    adapter.empty() ? "" : R"(, "adapter": ")", adapter,
                    adapter.empty() ? "" : "\"", "}\n");
  }
  return lines;
}

// The demo's caesar at a third of its strength: another adapter, as large.
std::string WeakCaesar() {
  PosixFileSystem fs;
  const std::string from = SourceDir() + "/demo/adapters/caesar/";
  const std::string dir = FreshTempDir("weak_caesar");
  for (const char* const name :
       {"adapter_config.json", "adapter_model.safetensors"}) {
    std::string bytes = fs.ReadFile(from + name, 1 << 30).value();
    if (absl::StrContains(name, "config")) {
      auto config = Json::Parse(bytes);
      config->Set("lora_alpha", config->Find("lora_alpha")->AsDouble() / 3);
      bytes = config->Dump();
    }
    EXPECT_TRUE(WriteFileDurably(fs, JoinPath(dir, name), bytes).ok());
  }
  return dir;
}

// One request after the other.
SubprocessResult RunDemoLines(const std::string& input) {
  setenv("LORIKEET_CUDA_ON_HOST_BUILD", "fast", 1);
  const std::string demo = SourceDir() + "/demo";
  std::vector<std::string> args = {LorikeetBinary(),
                                   "run",
                                   "--model",
                                   demo + "/base",
                                   "--device",
                                   "cuda-on-host",
                                   "--kv-cache-bytes",
                                   "1MiB",
                                   "--max-num-seqs",
                                   "1",
                                   "--log-level",
                                   "info",
                                   "--no-prefix-caching",
                                   "--max-loras",
                                   "1"};
  for (const std::string& adapter :
       {"caesar=" + demo + "/adapters/caesar", "weak=" + WeakCaesar(),
        "upper=" + demo + "/adapters/upper"}) {
    args.push_back("--adapter");
    args.push_back(adapter);
  }
  SubprocessResult r = RunSubprocess(args, input);
  unsetenv("LORIKEET_CUDA_ON_HOST_BUILD");
  return r;
}

// Two of one shape: the same linears and ranks.
TEST(CudaGraphTest, AnAdapterThatIsSwappedInReplaysTheGraphsOfTheOne) {
  const auto one = RunDemoLines(DemoLines({"caesar"}));
  const auto three = RunDemoLines(DemoLines({"caesar", "weak", "caesar"}));
  ASSERT_EQ(one.exit_code, 0) << one.err;
  ASSERT_EQ(three.exit_code, 0) << three.err;
  const auto [steps, graphs] = StepsAndGraphs(one.err);
  EXPECT_GT(graphs, steps / 2);
  // All steps of the second and the third, but a prefill seen once.
  const auto [all_steps, all_graphs] = StepsAndGraphs(three.err);
  EXPECT_EQ(all_steps, 3 * steps);
  EXPECT_GE(all_graphs, graphs + 2 * steps);
}

TEST(CudaGraphTest, StepsWithoutAdaptersReplayTheBasesOwnGraphs) {
  const auto base = RunDemoLines(DemoLines({""}));
  const auto after = RunDemoLines(DemoLines({"", "upper", ""}));
  ASSERT_EQ(base.exit_code, 0) << base.err;
  ASSERT_EQ(after.exit_code, 0) << after.err;
  // The last request, after one with an adapter, captures nothing.
  const auto [steps, graphs] = StepsAndGraphs(base.err);
  const auto upper = StepsAndGraphs(RunDemoLines(DemoLines({"upper"})).err);
  EXPECT_EQ(StepsAndGraphs(after.err).second, graphs + upper.second + steps);
}

TEST(CudaGraphTest, MoreShapesThanGraphsAreKeptComeAndGo) {
  std::string input;
  for (int round = 0; round < 2; ++round) {
    for (int length = 1; length <= (round == 0 ? 132 : 8); ++length) {
      absl::StrAppend(&input, "{\"token_ids\": [5");
      for (int i = 1; i < length; ++i)
        absl::StrAppend(&input, ", ", 5 + i % 50);
      absl::StrAppend(&input, "], \"max_tokens\": 1}\n");
    }
  }
  const SubprocessResult r = RunDemoLines(input);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  std::vector<std::string> lines = absl::StrSplit(r.out, '\n');
  ASSERT_GE(lines.size(), 140u);
  const auto token_of = [](const std::string& line) {
    return Json::Parse(line)->Find("token_ids")->Dump();
  };
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(token_of(lines[i]), token_of(lines[132 + i])) << i;
  }
}

TEST_F(CudaOnHostTest, WhatIsMissingIsSaid) {
  const Json manifest = Manifest();
  const GoldenRun c = MakeRun(manifest.Find("models")->items()[0], 0);
  const std::pair<const char*, const char*> cases[] = {
      {"devices=0", "no GPU"},
      {"sm=75", "the GPU is sm_75, at least sm_80 is needed"},
      {"memory=20000000", "out of device memory"},
      {"memory=60000000", "leave -"}};
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

TEST_F(CudaOnHostTest, TheBudgetIsKeptAndItsUseIsTold) {
  const Json manifest = Manifest();
  const GoldenRun c = MakeRun(manifest.Find("models")->items()[0], 0);
  const auto run = [&](const char* budget) {
    return Run(c, "fast", "memory=200000000",
               {"--device-memory-bytes", budget, "--adapter-device-bytes",
                "20MiB", "--log-level", "info"});
  };
  const SubprocessResult r = run("190MiB");
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.err, HasSubstr("device memory all="));
  EXPECT_THAT(r.err, HasSubstr("adapters=\"20.0 MiB\""));
  const SubprocessResult more = run("191MiB");
  EXPECT_NE(more.exit_code, 0);
  EXPECT_THAT(more.err,
              HasSubstr("a budget of 200278016 bytes, but 200000000 of"));
}

TEST_F(CudaOnHostTest, Int8WeightsAreRefusedByName) {
  const Json manifest = Manifest();
  const GoldenRun c = MakeRun(manifest.Find("models")->items()[0], 0);
  const SubprocessResult r = Run(c, "fast", "", {"--dtype", "int8"});
  EXPECT_NE(r.exit_code, 0);
  EXPECT_THAT(r.err, HasSubstr("--dtype int8: the CUDA backend has bf16"));
  EXPECT_EQ(r.out, "");
}

TEST_F(CudaOnHostTest, AFaultOfTheDeviceGivesErrorsAndNoTokens) {
  const Json manifest = Manifest();
  const GoldenRun c = MakeRun(manifest.Find("models")->items()[0], 0);
  const SubprocessResult r = Run(c, "fast", "fault=30");
  EXPECT_NE(r.exit_code, 0);
  EXPECT_THAT(r.err, HasSubstr("illegal memory access"));
  EXPECT_EQ(r.out, "");
}

}  // namespace
}  // namespace lorikeet::testing
