#include "train/training_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "adapters/peft_reader.h"
#include "tests/testing/fault_file_system.h"
#include "tests/train/train_fixture.h"

namespace lorikeet::testing {
namespace {

using ::testing::HasSubstr;

class TrainingJobTest : public ::testing::Test {
 protected:
  TrainingJobTest() : dir_(FreshTempDir("training_job")) {
    Write("train.jsonl", CapitalLines(30));
    Write("eval.jsonl", CapitalLines(5));
    files_.data = dir_ + "/train.jsonl";
    files_.eval = dir_ + "/eval.jsonl";
    files_.output = dir_ + "/out";
    files_.eval_steps = 4;
    files_.checkpoint_steps = 2;
  }

  void Write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteFileDurably(machine_.fs, dir_ + "/" + name, text).ok());
  }
  std::string Read(const std::string& path) {
    return machine_.fs.ReadFile(path, 1 << 30).value();
  }
  absl::StatusOr<std::unique_ptr<TrainingJob>> Create(
      const TrainingOptions& options) {
    return TrainingJob::Create(machine_.subject(), files_, options);
  }
  std::string CreateError(const TrainingOptions& options) {
    const auto job = Create(options);
    return job.ok() ? "" : std::string(job.status().message());
  }
  // The bytes of the adapter that a job writes to `name`.
  std::string Train(TrainMachine& machine, const TrainingOptions& options,
                    const std::string& name) {
    TrainingFiles files = files_;
    files.output = dir_ + "/" + name;
    auto job = TrainingJob::Create(machine.subject(), files, options);
    EXPECT_TRUE(job.ok()) << job.status();
    if (!job.ok()) return "";
    const absl::Status status = RunToEnd(**job);
    EXPECT_TRUE(status.ok()) << status;
    if (!status.ok()) return "";
    return Read(files.output + (options.method == TrainingMethod::kFull
                                    ? "/model.safetensors"
                                    : "/adapter_model.safetensors"));
  }

  TrainMachine machine_;
  const std::string dir_;
  TrainingFiles files_;
};

TEST_F(TrainingJobTest, LearnsItsTaskAndWritesAnAdapterThatIsRead) {
  TrainingOptions options = SmallOptions();
  options.steps = 40;
  auto job = Create(options).value();
  ASSERT_TRUE(RunToEnd(*job).ok());
  const TrainingHistory& history = job->history();
  ASSERT_EQ(history.steps.size(), 40u);
  EXPECT_EQ(history.evals.back().step, 40);
  EXPECT_LT(history.evals.back().loss, history.evals.front().loss / 2);
  EXPECT_THAT(
      machine_.fs.List(files_.output).value(),
      ::testing::ElementsAre("adapter_config.json", "adapter_model.safetensors",
                             "loss.csv", "loss.svg", "training.json"));
  EXPECT_FALSE(machine_.fs.IsDirectory(files_.output + ".training"));
  const auto weights =
      ReadPeftAdapter(machine_.fs, files_.output, machine_.base->config(), {},
                      std::nullopt)
          .value();
  EXPECT_EQ(weights->modules.size(), 28u);
  EXPECT_EQ(weights->max_rank, 4);
  EXPECT_EQ(weights->num_parameters, job->model().parameters().size());
  const Json record =
      Json::Parse(Read(files_.output + "/training.json")).value();
  EXPECT_EQ(record.Find("base")->Find("fingerprint")->AsString(),
            machine_.base->fingerprint().ToHex());
  EXPECT_EQ(record.Find("options")->Find("seed")->AsInt(), 3);
}

TEST_F(TrainingJobTest, ThreadsDoNotChangeABit) {
  TrainMachine one(1);
  TrainMachine three(3);
  EXPECT_EQ(Train(one, SmallOptions(), "one"),
            Train(three, SmallOptions(), "three"));
}

TEST_F(TrainingJobTest, WhatIsComputedAgainHasTheSameBits) {
  for (const bool use_dora : {false, true}) {
    TrainingOptions options = SmallOptions();
    options.use_dora = use_dora;
    options.dropout = 0.1;
    files_.tape_bytes = 0;
    const std::string again =
        Train(machine_, options, use_dora ? "again_dora" : "again");
    files_.tape_bytes = 1 << 30;
    EXPECT_EQ(Train(machine_, options, use_dora ? "kept_dora" : "kept"), again);
  }
}

TEST_F(TrainingJobTest, AJobThatWasCutOffGoesOnToTheSameBits) {
  TrainingOptions options = SmallOptions();
  options.dropout = 0.1;
  const std::string whole = Train(machine_, options, "whole");
  const std::string csv = Read(dir_ + "/whole/loss.csv");
  auto job = Create(options).value();
  // In the middle of the step after a checkpoint.
  while (job->steps_done() < 5) ASSERT_TRUE(job->RunSlice().ok());
  ASSERT_TRUE(job->RunSlice().ok());
  job.reset();
  files_.resume = true;
  job = Create(options).value();
  EXPECT_EQ(job->steps_done(), 4);
  ASSERT_TRUE(RunToEnd(*job).ok());
  EXPECT_EQ(Read(files_.output + "/adapter_model.safetensors"), whole);
  EXPECT_EQ(Read(files_.output + "/loss.csv"), csv);
}

TEST_F(TrainingJobTest, AJobThatWasCutOffBeforeItsOutputStillWritesIt) {
  auto job = Create(SmallOptions()).value();
  while (job->steps_done() < job->num_steps() || !job->is_writing()) {
    ASSERT_TRUE(job->RunSlice().ok());
  }
  ASSERT_TRUE(job->RunSlice().ok());  // the last checkpoint
  job.reset();
  files_.resume = true;
  job = Create(SmallOptions()).value();
  ASSERT_TRUE(RunToEnd(*job).ok());
  EXPECT_TRUE(machine_.fs.FileExists(files_.output + "/training.json"));
}

TEST_F(TrainingJobTest, EveryKindOfAdapterTrainsAndIsRead) {
  for (const char* kind : {"rslora", "dora", "dropout", "attention", "int8"}) {
    TrainingOptions options = SmallOptions();
    const std::string name(kind);
    options.use_rslora = name == "rslora";
    options.use_dora = name == "dora";
    options.dropout = name == "dropout" ? 0.2 : 0;
    if (name == "attention") options.target_modules = {"q_proj", "v_proj"};
    TrainMachine int8(2, DType::kI8);
    TrainMachine& machine = name == "int8" ? int8 : machine_;
    ASSERT_FALSE(Train(machine, options, name).empty()) << kind;
    const BaseWeights base(*machine.base, *machine.ops);
    const auto weights =
        ReadPeftAdapter(machine.fs, dir_ + "/" + name, machine.base->config(),
                        {}, std::nullopt, &base);
    ASSERT_TRUE(weights.ok()) << kind << weights.status();
    EXPECT_EQ((*weights)->features.keys.size(), name == "dora" ? 1u : 0u);
    EXPECT_EQ((*weights)->modules.size(), name == "attention" ? 8u : 28u);
  }
}

TEST_F(TrainingJobTest, LearnsItsTaskInBf16AsWell) {
  if (!TrainMachine::HasBf16()) GTEST_SKIP() << "skipped: no bf16";
  TrainMachine machine(2, std::nullopt, DType::kBF16);
  TrainingOptions options = SmallOptions();
  options.compute_dtype = DType::kBF16;
  options.steps = 40;
  auto job = TrainingJob::Create(machine.subject(), files_, options).value();
  ASSERT_TRUE(RunToEnd(*job).ok());
  EXPECT_LT(job->history().evals.back().loss,
            job->history().evals.front().loss / 2);
}

TEST_F(TrainingJobTest, AFullyTrainedModelLoads) {
  TrainingOptions options = SmallOptions();
  options.method = TrainingMethod::kFull;
  options.learning_rate = 1e-3;
  ASSERT_FALSE(Train(machine_, options, "full").empty());
  const auto model =
      Model::Load(machine_.fs, dir_ + "/full", *machine_.ops, {});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->dtype(), DType::kF32);
  EXPECT_NE((*model)->fingerprint(), machine_.base->fingerprint());
}

TEST_F(TrainingJobTest, AnOutputThatIsThereIsLeftAlone) {
  ASSERT_TRUE(machine_.fs.CreateDirectories(files_.output).ok());
  const auto job = Create(SmallOptions());
  EXPECT_TRUE(absl::IsAlreadyExists(job.status())) << job.status();
}

TEST_F(TrainingJobTest, TwoJobsWithOneOutputAreRefused) {
  const auto first = Create(SmallOptions()).value();
  const auto second = Create(SmallOptions());
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status()));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("in use"));
}

TEST_F(TrainingJobTest, ACheckpointIsNotOverwrittenUnasked) {
  auto job = Create(SmallOptions()).value();
  while (job->steps_done() < 3) ASSERT_TRUE(job->RunSlice().ok());
  job.reset();
  EXPECT_THAT(CreateError(SmallOptions()),
              HasSubstr("has a checkpoint of step 2; --resume"));
}

TEST_F(TrainingJobTest, ResumingNothingIsAnError) {
  files_.resume = true;
  EXPECT_THAT(CreateError(SmallOptions()), HasSubstr("no checkpoint"));
}

TEST_F(TrainingJobTest, ABaseDataOrOptionsThatChangedAreNamedOnResume) {
  auto job = Create(SmallOptions()).value();
  while (job->steps_done() < 3) ASSERT_TRUE(job->RunSlice().ok());
  job.reset();
  files_.resume = true;
  TrainingOptions options = SmallOptions();
  options.learning_rate = 0.25;
  EXPECT_THAT(CreateError(options),
              HasSubstr("made with learning_rate 0.005, this job has 0.25"));
  ModelOptions dummy;
  dummy.dummy_weights = true;
  const auto real = std::move(machine_.base);
  machine_.base =
      Model::Load(machine_.fs, SourceDir() + "/demo/base", *machine_.ops, dummy)
          .value();
  EXPECT_THAT(CreateError(SmallOptions()),
              HasSubstr("made with base_fingerprint"));
  machine_.base =
      Model::Load(machine_.fs, SourceDir() + "/demo/base", *machine_.ops, {})
          .value();
  Write("train.jsonl", CapitalLines(31));
  EXPECT_THAT(CreateError(SmallOptions()), HasSubstr("made with data_sha256"));
}

TEST_F(TrainingJobTest, AModuleThatDoesNotExistIsNamed) {
  TrainingOptions options = SmallOptions();
  options.target_modules = {"q_proj", "w_proj"};
  EXPECT_THAT(CreateError(options), HasSubstr("w_proj"));
  options.target_modules = {"w_proj"};
  EXPECT_THAT(CreateError(options), HasSubstr("w_proj"));
  options.target_modules = {"lm_head"};
  EXPECT_THAT(CreateError(options), HasSubstr("lm_head cannot be trained"));
}

TEST_F(TrainingJobTest, AnExampleLongerThanTheContextIsNamed) {
  Write("train.jsonl", "{\"prompt\": \"a\", \"completion\": \"" +
                           std::string(1100, 'B') + "\"}\n");
  TrainingOptions options = SmallOptions();
  options.token_budget = 4096;
  EXPECT_THAT(CreateError(options),
              HasSubstr("train.jsonl line 1: has 1102 tokens, more than the "
                        "model's context of 1024"));
}

TEST_F(TrainingJobTest, AFullDiskAtACheckpointLeavesTheEarlierOne) {
  FaultFileSystem fs(machine_.fs);
  auto job = TrainingJob::Create(machine_.subject(&fs), files_, SmallOptions())
                 .value();
  while (job->steps_done() < 3) ASSERT_TRUE(job->RunSlice().ok());
  fs.Arm(FaultFileSystem::Fault::kFailOnward, 0);
  const absl::Status status = RunToEnd(*job);
  fs.Disarm();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("checkpoint of step 4"));
  job.reset();
  files_.resume = true;
  job = Create(SmallOptions()).value();
  EXPECT_EQ(job->steps_done(), 2);
}

}  // namespace
}  // namespace lorikeet::testing
