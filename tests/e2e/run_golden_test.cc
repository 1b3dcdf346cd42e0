// `lorikeet run` against transformers and peft: every golden prompt of a model
// under every adapter and every composition, all in one mixed batch, in several
// orders and with too few device slots; and everything that has to be refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/file_system.h"
#include "base/json.h"
#include "base/regex.h"
#include "tests/e2e/golden_run.h"
#include "tests/testing/golden.h"
#include "tests/testing/subprocess.h"

namespace lorikeet::testing {
namespace {

// What must be the same bits whatever else happens: by id, tokens and logits.
std::map<std::string, std::string> Bits(const std::string& out) {
  std::map<std::string, std::string> bits;
  for (const absl::string_view line :
       absl::StrSplit(out, '\n', absl::SkipEmpty())) {
    const auto json = Json::Parse(line);
    EXPECT_TRUE(json.ok()) << json.status() << line.substr(0, 200);
    if (!json.ok()) continue;
    bits[json->Find("id")->AsString()] = absl::StrCat(
        json->Find("token_ids")->Dump(), json->Find("logits")->Dump());
  }
  return bits;
}

void CheckCase(const GoldenRun& c) {
  const SubprocessResult plain = RunGolden(c, c.input, {});
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  CompareWithGolden(c, plain.out);
  const auto bits = Bits(plain.out);
  const std::vector<std::vector<std::string>> variants = {
      {"--admit-seed", "1", "--max-num-batched-tokens", "16", "--max-num-seqs",
       "5"},
      {"--admit-seed", "2", "--max-loras", "3", "--threads", "1",
       "--no-prefix-caching"},
      // 40 blocks of a small model: sequences are preempted.
      {"--admit-seed", "3", "--max-model-len", "192", "--kv-cache-bytes",
       "1MiB"}};
  for (const auto& flags : variants) {
    const SubprocessResult other = RunGolden(c, c.input, flags);
    ASSERT_EQ(other.exit_code, 0) << other.err;
    EXPECT_TRUE(Bits(other.out) == bits) << c.name << " " << flags[1];
  }
}

// The goldens of all tiny models. REQUIRES: they are there.
std::vector<GoldenRun> TinyRuns() {
  const std::string tiny = TinyDir();
  const Json manifest = ReadJson(tiny + "/manifest.json");
  std::vector<GoldenRun> runs;
  for (const Json& model : manifest.Find("models")->items()) {
    runs.push_back(MakeGoldenRun(
        model, tiny, JoinPath(tiny, model.Find("dir")->AsString())));
  }
  return runs;
}

TEST(RunGoldenTest, TinyModelsWithAllAdaptersMixedMatchPeft) {
  if (TinyDir().empty()) GTEST_SKIP() << "skipped: no shared golden data";
  for (const GoldenRun& run : TinyRuns()) CheckCase(run);
}

// Served merged, in the base's place, while others run unmerged beside it.
TEST(RunGoldenTest, MergedVariantsMatchPeft) {
  if (TinyDir().empty()) GTEST_SKIP() << "skipped: no shared golden data";
  size_t merged = 0;
  for (const GoldenRun& c : TinyRuns()) {
    const SubprocessResult exact =
        RunGolden(c, c.input,
                  {"--merge", "always", "--max-merged", "2", "--dtype", "f32"});
    ASSERT_EQ(exact.exit_code, 0) << exact.err;
    CompareWithGolden(c, exact.out);
    const SubprocessResult rounded =
        RunGolden(c, c.input, {"--merge", "always", "--max-merged", "3"});
    ASSERT_EQ(rounded.exit_code, 0) << rounded.err;
    CompareWithGolden(c, rounded.out, kMaxErrorMergedBF16);
    for (const absl::string_view line : absl::StrSplit(rounded.out, '\n')) {
      if (absl::StrContains(line, "\"variant\": \"merged\"")) ++merged;
    }
  }
  EXPECT_GT(merged, 200u);
}

// int8 is not within the goldens' tolerance; what is asked for is that every
// feature has a way over quantized weights that stays near.
TEST(RunGoldenTest, EveryAdapterAnswersOverInt8) {
  if (TinyDir().empty()) GTEST_SKIP() << "skipped: no shared golden data";
  for (const GoldenRun& run : TinyRuns()) {
    const SubprocessResult r = RunGolden(run, run.input, {"--dtype", "int8"});
    EXPECT_EQ(r.exit_code, 0) << r.err;
    CompareWithGolden(run, r.out, /*max_error=*/0.5);
  }
}

// The same of adapters in 8 bits, merged or not; they keep their bits, too.
TEST(RunGoldenTest, EveryAdapterAnswersInEightBits) {
  if (TinyDir().empty()) GTEST_SKIP() << "skipped: no shared golden data";
  for (const GoldenRun& run : TinyRuns()) {
    const SubprocessResult r =
        RunGolden(run, run.input, {"--adapter-dtype", "int8"});
    ASSERT_EQ(r.exit_code, 0) << r.err;
    CompareWithGolden(run, r.out, kMaxErrorInt8Adapters);
    const SubprocessResult other =
        RunGolden(run, run.input,
                  {"--adapter-dtype", "int8", "--admit-seed", "2",
                   "--max-loras", "3", "--max-num-batched-tokens", "16"});
    ASSERT_EQ(other.exit_code, 0) << other.err;
    EXPECT_TRUE(Bits(other.out) == Bits(r.out)) << run.name;
    const SubprocessResult merged =
        RunGolden(run, run.input,
                  {"--adapter-dtype", "int8", "--merge", "always",
                   "--max-merged", "2", "--dtype", "f32"});
    ASSERT_EQ(merged.exit_code, 0) << merged.err;
    CompareWithGolden(run, merged.out, kMaxErrorInt8Adapters);
  }
}

TEST(RunGoldenTest, RealModelWithItsAdaptersMixedMatchesPeft) {
  const std::string dir = SharedDir() + "/golden/smollm2";
  PosixFileSystem fs;
  const std::string models = ModelsDir();
  if (SharedDir().empty() || models.empty() ||
      !fs.FileExists(dir + "/manifest.json") ||
      !fs.IsDirectory(models + "/smollm2-135m-instruct")) {
    GTEST_SKIP() << "skipped: no real model or its golden data";
  }
  const Json manifest = ReadJson(dir + "/manifest.json");
  const Json& model = manifest.Find("models")->items()[0];
  const GoldenRun c = MakeGoldenRun(
      model, dir, JoinPath(models, model.Find("prepared")->AsString()));
  const SubprocessResult plain = RunGolden(c, c.input, {});
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  CompareWithGolden(c, plain.out);
}

// Checks one folder of cases.json; `args` builds the command of a case.
template <typename Args>
void CheckRefused(const std::string& cases_file, Args args) {
  const Json cases = ReadJson(cases_file);
  for (const Json& bad : cases.Find("cases")->items()) {
    const std::string& name = bad.Find("name")->AsString();
    const std::string& dir = bad.Find("dir")->AsString();
    const SubprocessResult r = RunSubprocess(args(bad), "");
    if (bad.Find("policy")->AsString() == "refuse_or_correct" &&
        r.exit_code == 0) {
      continue;
    }
    EXPECT_EQ(r.exit_code, 1) << name << ": " << r.err;
    // Without the path of the case, which may say the word by accident.
    const std::string message = absl::StrReplaceAll(r.err, {{dir, ""}});
    for (const Json& pattern : bad.Find("must_match")->items()) {
      const auto regex = Regex::Compile("(?i)" + pattern.AsString());
      ASSERT_TRUE(regex.ok());
      const auto found = regex->Search(message);
      EXPECT_TRUE(found.ok() && found->has_value())
          << name << " must match " << pattern.AsString() << ": " << message;
    }
    if (const Json* forbidden = bad.Find("must_not_contain")) {
      for (const Json& text : forbidden->items()) {
        EXPECT_FALSE(absl::StrContains(r.err, text.AsString())) << name;
      }
    }
  }
}

TEST(RunGoldenTest, BadAdaptersAreRefusedByName) {
  const std::string tiny = TinyDir();
  if (tiny.empty()) GTEST_SKIP() << "skipped: no shared golden data";
  CheckRefused(tiny + "/bad_adapters/cases.json", [&](const Json& bad) {
    return std::vector<std::string>{
        LorikeetBinary(),
        "run",
        "--model",
        JoinPath(tiny, "models/" + bad.Find("model")->AsString()),
        "--adapter",
        absl::StrCat("a=", JoinPath(tiny, bad.Find("dir")->AsString()))};
  });
}

TEST(RunGoldenTest, BadModelsAreRefusedByName) {
  const std::string tiny = TinyDir();
  if (tiny.empty()) GTEST_SKIP() << "skipped: no shared golden data";
  CheckRefused(tiny + "/bad_models/cases.json", [&](const Json& bad) {
    return std::vector<std::string>{
        LorikeetBinary(), "run", "--model",
        JoinPath(tiny, bad.Find("dir")->AsString())};
  });
}

TEST(RunGoldenTest, CompositionsOfWhatDoesNotAddUpAreRefusedByPartAndFeature) {
  const std::string tiny = TinyDir();
  if (tiny.empty()) GTEST_SKIP() << "skipped: no shared golden data";
  const std::string adapters = tiny + "/adapters/llama-gqa-tied/";
  std::vector<std::string> args = {
      LorikeetBinary(),  "run", "--model", tiny + "/models/llama-gqa-tied",
      "--max-lora-rank", "70"};
  for (const char* name : {"r8-all", "r64-qkv", "dora", "lora-bias",
                           "save-lm-head-tied", "tokens-tied", "alora"}) {
    args.push_back("--adapter");
    args.push_back(absl::StrCat(name, "=", adapters, name));
  }
  std::string input;
  const auto add = [&](absl::string_view parts) {
    absl::StrAppend(&input, "{\"token_ids\": [1], \"max_tokens\": 1, ",
                    "\"adapters\": [", parts, "]}\n");
  };
  for (const char* name :
       {"dora", "lora-bias", "save-lm-head-tied", "tokens-tied", "alora"}) {
    add(absl::StrCat("{\"name\": \"r8-all\"}, {\"name\": \"", name, "\"}"));
    add(absl::StrCat("{\"name\": \"", name, "\", \"scale\": 0.5}"));
    add(absl::StrCat("{\"name\": \"", name, "\", \"scale\": 1}"));
  }
  add("{\"name\": \"r8-all\"}, {\"name\": \"r64-qkv\"}");
  add("{\"name\": \"r8-all\", \"weight\": 1}");
  add("");
  const SubprocessResult r = RunSubprocess(args, input);
  EXPECT_EQ(r.exit_code, 1);
  // Alone and at scale 1 they answer.
  EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), 5) << r.out;
  for (const char* text :
       {"line 1: adapters[1].name is \"dora\", an adapter with use_dora",
        "line 2: adapters[0].scale is 0.5 for \"dora\"",
        "\"lora-bias\", an adapter with lora_bias",
        "an adapter with modules_to_save",
        "an adapter with trainable_token_indices",
        "an adapter with alora_invocation_tokens",
        "rank 72 in total, max_lora_rank is 70", "\"weight\" is not known",
        "field \"adapters\" is no list"}) {
    EXPECT_THAT(r.err, ::testing::HasSubstr(text));
  }
}

TEST(RunGoldenTest, UpdateLoadAndUnloadBetweenRequestsChangeNothingElse) {
  const std::string demo = SourceDir() + "/demo";
  const std::string request =
      "{\"id\": \"$0\", \"adapter\": \"caesar\", \"prompt\": \"Word: "
      "apple\\nAnswer:\", \"max_tokens\": 20, \"return_logits\": true}\n";
  const auto line = [&](const std::string& id) {
    return absl::StrReplaceAll(request, {{"$0", id}});
  };
  const std::string input = absl::StrCat(
      line("old"), "{\"op\": \"unload\", \"adapter\": \"caesar\"}\n",
      line("reloaded"), "{\"op\": \"update\", \"adapter\": \"caesar\", ",
      "\"path\": \"", demo, "/adapters-v2/caesar\"}\n", line("new"),
      "{\"op\": \"barrier\"}\n",
      "{\"op\": \"load\", \"adapter\": \"caesar\"}\n", line("new again"),
      "{\"op\": \"update\", \"adapter\": \"caesar\", ", "\"path\": \"", demo,
      "/adapters/caesar\"}\n", line("back"));
  const SubprocessResult r = RunSubprocess(
      {LorikeetBinary(), "run", "--model", demo + "/base", "--adapter",
       absl::StrCat("caesar=", demo, "/adapters/caesar")},
      input);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto bits = Bits(r.out);
  ASSERT_EQ(bits.size(), 5u) << r.out;
  EXPECT_EQ(bits.at("old"), bits.at("reloaded"));
  EXPECT_EQ(bits.at("new"), bits.at("new again"));
  EXPECT_EQ(bits.at("old"), bits.at("back"));
  EXPECT_NE(bits.at("old"), bits.at("new"));
}

TEST(RunGoldenTest, BadRequestsAreNamedAndTheOthersAnswered) {
  const std::string demo = SourceDir() + "/demo";
  const SubprocessResult r =
      RunSubprocess({LorikeetBinary(), "run", "--model", demo + "/base"},
                    "{\"id\": 1, \"prompt\": \"a\", \"max_tokens\": 1}\n"
                    "{\"id\": 2, \"prompt\": \"a\", \"adapter\": \"nobody\"}\n"
                    "{\"id\": 3, \"prompt\": \"a\", \"max_tokens\": 0}\n"
                    "{\"id\": 4, \"token_ids\": [999999]}\n"
                    "not json\n"
                    "{\"id\": 5, \"prompt\": \"a\", \"colour\": 1}\n"
                    "{\"id\": 6, \"prompt\": \"\", \"max_tokens\": 1}\n"
                    "{\"id\": 7, \"prompt\": \"b\", \"max_tokens\": 1}\n");
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_THAT(r.out, ::testing::HasSubstr("\"id\": 1,"));
  EXPECT_THAT(r.out, ::testing::HasSubstr("\"id\": 7,"));
  EXPECT_THAT(r.err, ::testing::HasSubstr("nobody"));
  EXPECT_THAT(r.err, ::testing::HasSubstr("max_tokens"));
  EXPECT_THAT(r.err, ::testing::HasSubstr("999999"));
  EXPECT_THAT(r.err, ::testing::HasSubstr("line 5"));
  EXPECT_THAT(r.err, ::testing::HasSubstr("colour"));
  EXPECT_THAT(r.err, ::testing::HasSubstr("line 7 (id 6)"));
}

}  // namespace
}  // namespace lorikeet::testing
