// `lorikeet adapter merge` against peft: every golden adapter and composition,
// merged in f32 and run as a base model, answers as it does unmerged.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file_system.h"
#include "base/json.h"
#include "tests/e2e/golden_run.h"
#include "tests/testing/golden.h"
#include "tests/testing/subprocess.h"

namespace lorikeet::testing {
namespace {

using ::testing::HasSubstr;

// An adapter of the manifest, or several with scales.
struct Merge {
  std::string name;
  std::string golden;
  std::vector<std::string> flags;
};

std::vector<Merge> MergesOf(const Json& model, const std::string& dir) {
  std::vector<Merge> merges;
  for (const Json& adapter : model.Find("adapters")->items()) {
    merges.push_back(
        {adapter.Find("name")->AsString(),
         JoinPath(dir, adapter.Find("golden")->AsString()),
         {"--adapter", JoinPath(dir, adapter.Find("dir")->AsString())}});
  }
  const Json* mixes = model.Find("mixes");
  if (mixes == nullptr) return merges;
  for (const Json& mix : mixes->items()) {
    Merge merge;
    merge.name = "mix-" + mix.Find("name")->AsString();
    merge.golden = JoinPath(dir, mix.Find("golden")->AsString());
    for (const Json& part : mix.Find("parts")->items()) {
      merge.flags.push_back("--adapter");
      merge.flags.push_back(absl::StrCat(dir, "/adapters/",
                                         model.Find("name")->AsString(), "/",
                                         part.items()[0].AsString()));
      merge.flags.push_back(
          absl::StrCat("--scale=", part.items()[1].AsDouble()));
    }
    merges.push_back(std::move(merge));
  }
  return merges;
}

SubprocessResult RunMerge(const std::string& model_dir, const Merge& merge,
                          const std::string& output,
                          const std::vector<std::string>& flags) {
  std::vector<std::string> args = {
      LorikeetBinary(), "adapter",  "merge", "--model",
      model_dir,        "--output", output};
  args.insert(args.end(), merge.flags.begin(), merge.flags.end());
  args.insert(args.end(), flags.begin(), flags.end());
  return RunSubprocess(args, "");
}

void CheckMerged(const Merge& merge, const std::string& dir, double max_error) {
  GoldenRun run;
  run.name = merge.name;
  run.model_dir = dir;
  AddGolden(merge.golden, merge.name, {}, &run);
  const SubprocessResult r = RunGolden(run, run.input, {});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  CompareWithGolden(run, r.out, max_error);
}

TEST(MergeGoldenTest, EveryMergedAdapterAnswersAsUnmerged) {
  const std::string tiny = TinyDir();
  if (tiny.empty()) GTEST_SKIP() << "skipped: no shared golden data";
  const std::string temp = FreshTempDir("merge_golden");
  const Json manifest = ReadJson(tiny + "/manifest.json");
  int merged = 0, refused = 0;
  for (const Json& model : manifest.Find("models")->items()) {
    const std::string model_dir = JoinPath(tiny, model.Find("dir")->AsString());
    for (const Merge& merge : MergesOf(model, tiny)) {
      SCOPED_TRACE(absl::StrCat(model_dir, " ", merge.name));
      const std::string output = absl::StrCat(temp, "/", merged + refused);
      const SubprocessResult r =
          RunMerge(model_dir, merge, output, {"--dtype", "f32"});
      if (r.exit_code != 0) {
        ++refused;
        EXPECT_THAT(
            r.err, ::testing::AnyOf(HasSubstr("alora_invocation_tokens"),
                                    HasSubstr("has no bias to merge it into")));
        EXPECT_FALSE(PosixFileSystem().IsDirectory(output));
        continue;
      }
      ++merged;
      CheckMerged(merge, output, kMaxError);
    }
  }
  EXPECT_GT(merged, 50);
  // Two aLoRA; lora_bias on linears that have no bias.
  EXPECT_EQ(refused, 3);
}

TEST(MergeGoldenTest, MergedInTheBasesTypeItIsWithinOneRounding) {
  const std::string tiny = TinyDir();
  if (tiny.empty()) GTEST_SKIP() << "skipped: no shared golden data";
  const std::string temp = FreshTempDir("merge_golden_bf16");
  const Json manifest = ReadJson(tiny + "/manifest.json");
  const Json& model = manifest.Find("models")->items()[0];
  const std::string model_dir = JoinPath(tiny, model.Find("dir")->AsString());
  for (const Merge& merge : MergesOf(model, tiny)) {
    if (merge.name != "r8-all" && merge.name != "dora" &&
        merge.name != "mix-two" && merge.name != "lora-embed-tied") {
      continue;
    }
    SCOPED_TRACE(merge.name);
    const std::string output = JoinPath(temp, merge.name);
    const SubprocessResult r = RunMerge(model_dir, merge, output, {});
    ASSERT_EQ(r.exit_code, 0) << r.err;
    CheckMerged(merge, output, kMaxErrorMergedBF16);
    // What no adapter touches is there as it was.
    PosixFileSystem fs;
    const auto file = SafetensorsFile::Open(
        fs, JoinPath(output, "model.safetensors"), "merged");
    const auto base = SafetensorsFile::Open(
        fs, JoinPath(model_dir, "model.safetensors"), "base");
    ASSERT_TRUE(file.ok() && base.ok());
    EXPECT_EQ((*file)->Find("model.norm.weight")->bytes,
              (*base)->Find("model.norm.weight")->bytes);
    EXPECT_EQ((*file)->Find("model.layers.0.self_attn.q_proj.weight")->dtype,
              "BF16");
  }
}

TEST(MergeGoldenTest, WhatIsThereIsNotOverwritten) {
  const std::string demo = SourceDir() + "/demo";
  const std::string output = FreshTempDir("merge_exists");
  const SubprocessResult r = RunMerge(
      demo + "/base", {"upper", "", {"--adapter", demo + "/adapters/upper"}},
      output, {});
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_THAT(r.err, HasSubstr("already something at"));
}

TEST(MergeGoldenTest, AMergedModelKeepsItsTokenizer) {
  const std::string demo = SourceDir() + "/demo";
  const std::string output = FreshTempDir("merge_demo") + "/upper";
  const SubprocessResult r = RunMerge(
      demo + "/base", {"upper", "", {"--adapter", demo + "/adapters/upper"}},
      output, {});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const SubprocessResult answer = RunSubprocess(
      {LorikeetBinary(), "run", "--model", output},
      "{\"prompt\": \"Word: parrot\\nAnswer:\", \"max_tokens\": 20}\n");
  EXPECT_THAT(answer.out, HasSubstr("\"text\": \" PARROT\"")) << answer.err;
}

}  // namespace
}  // namespace lorikeet::testing
