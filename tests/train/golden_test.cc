// Twenty steps as PyTorch and PEFT did them: same base, same initial adapter,
// same batches (golden/training/README.md). On the emulated GPU the first five,
// with what bf16 products allow.

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file_system.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/train/train_ops.h"
#include "model/safetensors.h"
#include "tests/cuda_on_host/emulated_backend.h"
#include "tests/testing/golden.h"
#include "train/trainer.h"

namespace lorikeet::testing {
namespace {

constexpr int64_t kSteps = 20;
constexpr size_t kStepsOnGpu = 5;

struct GoldenStep {
  std::vector<std::vector<TrainSequence>> micro_batches;
};

struct Run {
  std::string name;
  bool is_on_gpu = false;
};

class TrainGoldenTest : public ::testing::TestWithParam<Run> {
 protected:
  void SetUp() override {
    if (GetParam().is_on_gpu) {
      const std::string path = CudaOnHostPath("fast");
      if (!HasCudaOnHost(path)) GTEST_SKIP() << "skipped: no emulated GPU";
      ops_ = OpenCudaOnHost(path);
      train_ = ops_->NewTrainOps().value();
      device_ = &CudaOnHostControl(path);
    } else {
      ops_ = NewCpuOps(pool_);
      train_ = CreateCpuTrainOps(pool_).value();
    }
    stream_ = ops_->NewStream();
    if (SharedDir().empty()) GTEST_SKIP() << "skipped: no shared golden data";
    dir_ = absl::StrCat(SharedDir(), "/golden/training/", GetParam().name);
    const std::string text =
        fs_.ReadFile(absl::StrCat(dir_, "/run.json"), 1 << 24).value();
    run_ = Json::Parse(text).value();
    const std::string model_dir = absl::StrCat(SharedDir(), "/golden/training/",
                                               run_.Find("model")->AsString());
    base_ = Model::Load(fs_, model_dir, *ops_, {}).value();
    is_full_ = run_.Find("method")->AsString() == "full";
    ReadBatches();
    MakeModel();
    MakeTrainer();
  }

  void ReadBatches() {
    const std::string text =
        fs_.ReadFile(absl::StrCat(dir_, "/batches.jsonl"), 1 << 24).value();
    for (const absl::string_view line :
         absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      const Json json = Json::Parse(line).value();
      GoldenStep step;
      for (const Json& batch : json.Find("micro_batches")->items()) {
        step.micro_batches.emplace_back();
        for (const Json& sequence : batch.items()) {
          TrainSequence s;
          for (const Json& t : sequence.Find("token_ids")->items()) {
            s.tokens.push_back(static_cast<Token>(t.AsInt()));
          }
          for (const Json& m : sequence.Find("loss_mask")->items()) {
            s.is_target.push_back(m.AsInt() != 0);
          }
          step.micro_batches.back().push_back(std::move(s));
        }
      }
      steps_.push_back(std::move(step));
    }
  }

  void MakeModel() {
    if (is_full_) {
      model_ = TrainModel::Full(*base_, *ops_, *stream_).value();
      return;
    }
    const std::string config =
        fs_.ReadFile(absl::StrCat(dir_, "/init/adapter_config.json"), 1 << 20)
            .value();
    const PeftConfig peft = PeftConfig::Parse(config).value();
    model_ =
        TrainModel::Lora(*base_, peft, 0, *ops_, *train_, *stream_).value();
    const auto init = Open("/init/adapter_model.safetensors");
    const ParameterSet& parameters = model_->parameters();
    for (size_t i = 0; i < parameters.shapes().size(); ++i) {
      const auto values = ReadF32(*init, parameters.shapes()[i].name).value();
      ASSERT_EQ(static_cast<int64_t>(values.size()),
                parameters.shapes()[i].size());
      std::copy(values.begin(), values.end(), parameters.host_value(i).f32(0));
    }
    ASSERT_TRUE(model_->parameters().Upload(*stream_).ok());
  }

  void MakeTrainer() {
    const Json& optimizer = *run_.Find("optimizer");
    TrainerOptions options;
    options.schedule = {optimizer.Find("lr_peak")->AsDouble(), kSteps, 4,
                        Schedule::Decay::kCosine};
    options.weight_decay = optimizer.Find("weight_decay")->AsDouble();
    options.clip_norm = run_.Find("clip_grad_norm")->AsDouble();
    options.passes.tape_bytes = int64_t{1} << 30;
    trainer_ =
        std::make_unique<Trainer>(*model_, *train_, *ops_, *stream_, options);
  }

  std::unique_ptr<SafetensorsFile> Open(const std::string& name) {
    return SafetensorsFile::Open(fs_, absl::StrCat(dir_, name), name).value();
  }

  void RunStep(size_t index) {
    std::vector<TrainBatch> batches;
    for (const auto& sequences : steps_[index].micro_batches) {
      batches.emplace_back();
      for (const TrainSequence& s : sequences) batches.back().push_back(&s);
    }
    trainer_->BeginStep(std::move(batches));
    while (!trainer_->RunSlice().value()) {
    }
  }

  // What the log says of step `i`, within relative errors.
  void ExpectReport(size_t i, double loss_error, double norm_error) {
    const Json& log = run_.Find("log")->items()[i];
    const StepReport& report = trainer_->report();
    const double loss = log.Find("loss")->AsDouble();
    const double norm = log.Find("grad_norm")->AsDouble();
    EXPECT_NEAR(report.loss, loss, loss_error * loss) << "step " << i + 1;
    EXPECT_NEAR(report.gradient_norm, norm, norm_error * norm)
        << "step " << i + 1;
    EXPECT_NEAR(report.learning_rate, log.Find("lr")->AsDouble(), 1e-12);
  }

  void ExpectAdapter(size_t step, double bound) {
    ExpectParameters(
        absl::StrCat("/after_", step, "/adapter_model.safetensors"), bound);
  }

  // Largest difference of all parameters from a file.
  void ExpectParameters(const std::string& name, double bound) {
    ASSERT_TRUE(model_->parameters().Download(*stream_).ok());
    const auto file = Open(name);
    const ParameterSet& parameters = model_->parameters();
    double largest = 0;
    std::string where;
    for (size_t i = 0; i < parameters.shapes().size(); ++i) {
      const std::string& tensor = parameters.shapes()[i].name;
      const auto expected = ReadF32(*file, tensor).value();
      const float* actual = parameters.host_value(i).f32(0);
      for (size_t j = 0; j < expected.size(); ++j) {
        const double error = std::fabs(static_cast<double>(actual[j]) -
                                       static_cast<double>(expected[j]));
        if (!(error > largest)) continue;
        largest = error;
        where = tensor;
      }
    }
    EXPECT_LT(largest, bound) << name << " in " << where;
    RecordProperty(absl::StrCat("largest", name), absl::StrCat(largest));
  }

  // Gradients of a step against the file: the largest and the RMS error, in
  // units of their RMS.
  void ExpectGradients(int step, double largest_bound, double rms_bound) {
    const auto file = Open("/grads.safetensors");
    const ParameterSet& parameters = model_->parameters();
    std::vector<float> gradients(parameters.gradients().size());
    ops_->CopyOut(parameters.gradients().data(), gradients.data(),
                  parameters.size() * int64_t{sizeof(float)}, *stream_);
    ASSERT_TRUE(stream_->Sync().ok());
    const float* actual = gradients.data();
    double squares = 0, error_squares = 0;
    double largest = 0;
    std::string where;
    for (size_t i = 0; i < parameters.shapes().size(); ++i) {
      const std::string name =
          absl::StrCat("step", step, ".", parameters.shapes()[i].name);
      const auto expected = ReadF32(*file, name).value();
      for (size_t j = 0; j < expected.size(); ++j) {
        const double e = static_cast<double>(expected[j]);
        squares += e * e;
        const double error = std::fabs(static_cast<double>(actual[j]) - e);
        error_squares += error * error;
        if (error > largest) {
          largest = error;
          where = name;
        }
        // Adam divides by the size of a gradient: zero has to be zero.
        if (expected[j] == 0) {
          EXPECT_EQ(actual[j], 0) << name;
        }
      }
      actual += expected.size();
    }
    const double rms =
        std::sqrt(squares / static_cast<double>(parameters.size()));
    EXPECT_LT(largest / rms, largest_bound) << where;
    EXPECT_LT(std::sqrt(error_squares / squares), rms_bound);
  }

  PosixFileSystem fs_;
  ThreadPool pool_{2};
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<TrainOps> train_;
  std::unique_ptr<Stream> stream_;
  const cuda_on_host::Control* device_ = nullptr;
  std::string dir_;
  Json run_;
  bool is_full_ = false;
  std::unique_ptr<Model> base_;
  std::vector<GoldenStep> steps_;
  std::unique_ptr<TrainModel> model_;
  std::unique_ptr<Trainer> trainer_;
};

using TrainGoldenOnCpuTest = TrainGoldenTest;
TEST_P(TrainGoldenOnCpuTest, TwentyStepsAreThoseOfPeft) {
  ASSERT_EQ(steps_.size(), static_cast<size_t>(kSteps));
  for (size_t i = 0; i < steps_.size(); ++i) {
    RunStep(i);
    ExpectReport(i, 1e-5, 1e-4);
    if (i == 0) ExpectGradients(1, 2e-4, 2e-5);
    if (i == 1 && !is_full_) ExpectGradients(2, 2e-4, 2e-5);
    if ((i == 0 || i == 4) && !is_full_) ExpectAdapter(i + 1, 1e-4);
  }
  if (!is_full_) return ExpectAdapter(20, 1e-4);
  ExpectParameters("/after_20/model.safetensors", 1e-4);
}

// Adam makes steps of one size of gradients of any, so that parameters whose
// gradient is next to nothing go anywhere: gradients and losses are compared.
using TrainGoldenOnGpuTest = TrainGoldenTest;
TEST_P(TrainGoldenOnGpuTest, FiveStepsAreThoseOfPeftWithinBf16) {
  for (size_t i = 0; i < kStepsOnGpu; ++i) {
    RunStep(i);
    ExpectReport(i, 3e-3, 1e-2);
    if (i == 0) ExpectGradients(1, 0.5, 0.03);
  }
  ExpectNoFindings(*device_);
}

std::vector<Run> RunsOf(bool is_on_gpu) {
  std::vector<Run> runs;
  for (const char* const name :
       {"lora-llama-all", "lora-qwen2-qv", "rslora-llama-attn", "dora-llama",
        "full-llama3-untied", "full-llama-tied"}) {
    runs.push_back({name, is_on_gpu});
  }
  return runs;
}
std::string TestName(const ::testing::TestParamInfo<Run>& p) {
  std::string name = p.param.name;
  std::ranges::replace(name, '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Runs, TrainGoldenOnCpuTest,
                         ::testing::ValuesIn(RunsOf(false)), TestName);
INSTANTIATE_TEST_SUITE_P(Runs, TrainGoldenOnGpuTest,
                         ::testing::ValuesIn(RunsOf(true)), TestName);

}  // namespace
}  // namespace lorikeet::testing
