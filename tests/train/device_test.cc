// Training jobs on a device, here the emulated GPU, beside the same jobs on the
// CPU.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "adapters/peft_reader.h"
#include "tests/cuda_on_host/emulated_backend.h"
#include "tests/train/train_fixture.h"

namespace lorikeet::testing {
namespace {

using ::testing::HasSubstr;

class TrainDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!HasCudaOnHost(path_)) GTEST_SKIP() << "skipped: no emulated GPU";
    gpu_ = std::make_unique<TrainMachine>(OpenCudaOnHost(path_));
    const absl::Status status =
        WriteFileDurably(cpu_.fs, dir_ + "/train.jsonl", CapitalLines(30));
    ASSERT_TRUE(status.ok()) << status;
  }
  void TearDown() override {
    if (gpu_ != nullptr) ExpectNoFindings(CudaOnHostControl(path_));
  }

  TrainingFiles Files(const std::string& output) const {
    TrainingFiles files;
    files.data = dir_ + "/train.jsonl";
    files.eval = files.data;
    files.eval_steps = 0;
    files.checkpoint_steps = 2;
    files.output = dir_ + "/" + output;
    return files;
  }
  static TrainingOptions Options() {
    TrainingOptions options = SmallOptions();
    options.steps = 3;
    return options;
  }
  absl::StatusOr<std::unique_ptr<TrainingJob>> Create(
      TrainMachine& machine, const TrainingOptions& options,
      const TrainingFiles& files) {
    return TrainingJob::Create(machine.subject(), files, options);
  }
  TrainingHistory Train(TrainMachine& machine, const TrainingOptions& options,
                        const std::string& output) {
    auto job = Create(machine, options, Files(output));
    EXPECT_TRUE(job.ok()) << job.status();
    if (!job.ok()) return {};
    const absl::Status status = RunToEnd(**job);
    EXPECT_TRUE(status.ok()) << status;
    return (*job)->history();
  }
  // The GPU's losses are the CPU's up to what rounding to bf16 does.
  void ExpectSameLosses(const TrainingOptions& options,
                        const std::string& name) {
    const TrainingHistory cpu = Train(cpu_, options, name + "_cpu");
    const TrainingHistory gpu = Train(*gpu_, options, name + "_gpu");
    ASSERT_EQ(cpu.steps.size(), 3u);
    ASSERT_EQ(gpu.steps.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      const double loss = cpu.steps[i].loss;
      const double norm = cpu.steps[i].gradient_norm;
      EXPECT_NEAR(gpu.steps[i].loss, loss, 0.02 * loss) << i;
      EXPECT_NEAR(gpu.steps[i].gradient_norm, norm, 0.02 * norm) << i;
    }
    ASSERT_EQ(gpu.evals.size(), 1u);
    EXPECT_NEAR(gpu.evals[0].loss, cpu.evals[0].loss, 0.02 * cpu.evals[0].loss);
  }

  const std::string path_ = CudaOnHostPath("fast");
  const std::string dir_ = FreshTempDir("train_device");
  TrainMachine cpu_;
  std::unique_ptr<TrainMachine> gpu_;
};

TEST_F(TrainDeviceTest, AnAdapterIsTrainedAsOnTheCpu) {
  ExpectSameLosses(Options(), "lora");
  EXPECT_TRUE(cpu_.fs.FileExists(dir_ + "/lora_gpu/adapter_model.safetensors"));
}

TEST_F(TrainDeviceTest, DoraWithDropoutIsTrainedAsOnTheCpu) {
  TrainingOptions options = Options();
  options.use_dora = true;
  options.dropout = 0.1;
  ExpectSameLosses(options, "dora");
}

TEST_F(TrainDeviceTest, AllWeightsAreTrainedAsOnTheCpu) {
  TrainingOptions options = Options();
  options.method = TrainingMethod::kFull;
  options.learning_rate = 1e-3;
  options.token_budget = 32;
  options.batch_size = 2;
  ExpectSameLosses(options, "full");
}

TEST_F(TrainDeviceTest, AJobThatWasCutOffGoesOnToTheSameBits) {
  TrainingOptions options = Options();
  options.dropout = 0.1;
  Train(*gpu_, options, "whole");
  TrainingFiles files = Files("cut");
  auto job = Create(*gpu_, options, files).value();
  while (job->steps_done() < 2 || job->is_writing()) {
    ASSERT_TRUE(job->RunSlice().ok());
  }
  ASSERT_TRUE(job->RunSlice().ok());  // in the middle of the third step
  job.reset();
  files.resume = true;
  // Another device's numbers would not be the same.
  const auto on_cpu = Create(cpu_, options, files);
  EXPECT_THAT(
      std::string(on_cpu.status().message()),
      HasSubstr(R"(was made with device \"cuda\", this job has \"cpu\")"));
  job = Create(*gpu_, options, files).value();
  EXPECT_EQ(job->steps_done(), 2);
  ASSERT_TRUE(RunToEnd(*job).ok());
  const auto weights = [&](const std::string& name) {
    return cpu_.fs
        .ReadFile(dir_ + "/" + name + "/adapter_model.safetensors", 1 << 30)
        .value();
  };
  EXPECT_EQ(weights("cut"), weights("whole"));
}

TEST_F(TrainDeviceTest, WhatIsComputedAgainHasTheSameBits) {
  std::string weights[2];
  for (const int64_t tape_bytes : {0, 1 << 28}) {
    const std::string name = tape_bytes == 0 ? "again" : "kept";
    TrainingFiles files = Files(name);
    files.tape_bytes = tape_bytes;
    auto job = Create(*gpu_, Options(), files).value();
    ASSERT_TRUE(RunToEnd(*job).ok());
    weights[tape_bytes == 0 ? 0 : 1] =
        cpu_.fs.ReadFile(files.output + "/adapter_model.safetensors", 1 << 30)
            .value();
  }
  EXPECT_EQ(weights[0], weights[1]);
}

TEST_F(TrainDeviceTest, TooLittleMemoryIsAnErrorAtTheStart) {
  TrainMachine small(
      OpenCudaOnHost(path_, {.memory_bytes = int64_t{80} << 20}));
  TrainingOptions options = Options();
  options.token_budget = 8192;
  const auto job = Create(small, options, Files("small"));
  EXPECT_TRUE(absl::IsResourceExhausted(job.status())) << job.status();
  EXPECT_THAT(std::string(job.status().message()),
              HasSubstr("out of device memory"));
}

}  // namespace
}  // namespace lorikeet::testing
