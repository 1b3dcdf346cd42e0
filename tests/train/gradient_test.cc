// Gradients of whole models against differences of their loss: every kind of
// parameter of every family, and of every kind of adapter.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "tests/train/train_fixture.h"
#include "train/trainer.h"

namespace lorikeet::testing {
namespace {

// A model of the golden data on the CPU backend, with a batch of two packed
// sequences.
class GradientTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (TinyDir().empty()) GTEST_SKIP() << "skipped: no shared golden data";
    base_ = Model::Load(fs_, TinyDir() + "/models/" + GetParam(), *ops_, {})
                .value();
    Rng rng(4);
    for (const int length : {23, 9}) {
      TrainSequence s;
      for (int i = 0; i < length; ++i) {
        const uint64_t vocab =
            static_cast<uint64_t>(base_->config().vocab_size);
        s.tokens.push_back(static_cast<Token>(rng.Below(vocab)));
        s.is_target.push_back(i > 2 && i % 3 != 0);
      }
      sequences_.push_back(std::move(s));
    }
    for (const TrainSequence& s : sequences_) batch_.push_back(&s);
  }

  double Loss(TrainModel& model) {
    Trainer trainer(model, *train_, *ops_, stream_, Options());
    return trainer.Evaluate(batch_).value().loss_sum;
  }

  static TrainerOptions Options() {
    TrainerOptions options;
    options.passes = {64, 1 << 24};
    return options;
  }

  // Compares the largest element of every tensor's gradient.
  void Check(TrainModel& model, bool gains_are_constant) {
    BatchPass pass(model, *train_, *ops_, stream_, Options().passes);
    for (size_t i = 0; i < model.num_dora(); ++i) {
      ASSERT_TRUE(model.RefreshGains(i, *ops_, *train_, stream_).ok());
    }
    model.parameters().ClearGradients(*train_, stream_);
    pass.Begin(batch_, 1, {});
    while (!pass.RunSlice()) {
    }
    const ParameterSet& parameters = model.parameters();
    for (size_t i = 0; i < parameters.shapes().size(); ++i) {
      const std::string& name = parameters.shapes()[i].name;
      // PEFT's DoRA takes the norm, which depends on A and B, for a constant.
      if (gains_are_constant && name.find("magnitude") == std::string::npos) {
        continue;
      }
      const Tensor gradient = parameters.gradient(i);
      int64_t at = 0;
      for (int64_t j = 0; j < parameters.shapes()[i].size(); ++j) {
        if (std::fabs(gradient.f32(0)[j]) > std::fabs(gradient.f32(0)[at])) {
          at = j;
        }
      }
      const double actual = static_cast<double>(gradient.f32(0)[at]);
      float& value = parameters.value(i).f32(0)[at];
      const float before = value;
      constexpr float kStep = 1.0f / 256;
      value = before + kStep;
      const double up = Loss(model);
      value = before - kStep;
      const double down = Loss(model);
      value = before;
      const double expected = (up - down) / (2 * kStep);
      EXPECT_NEAR(actual, expected, 0.02 * std::fabs(expected) + 0.02) << name;
    }
  }

  // An adapter with a B that is not zero, so that A has a gradient.
  std::unique_ptr<TrainModel> Adapter(bool use_dora) {
    PeftConfig peft;
    peft.r = 4;
    peft.lora_alpha = 4;
    peft.use_dora = use_dora;
    peft.target_modules = ModuleChoice{"all-linear", {}};
    auto model =
        TrainModel::Lora(*base_, peft, 0, *ops_, *train_, stream_).value();
    Rng rng(8);
    for (float& v : model->parameters().values()) {
      v += static_cast<float>(rng.Normal() * 0.05);
    }
    return model;
  }

  PosixFileSystem fs_;
  ThreadPool pool_{2};
  std::unique_ptr<Ops> ops_ = NewCpuOps(pool_);
  std::unique_ptr<TrainOps> train_ = CreateCpuTrainOps(pool_).value();
  HostStream stream_;
  std::unique_ptr<Model> base_;
  std::vector<TrainSequence> sequences_;
  TrainBatch batch_;
};

TEST_P(GradientTest, OfAllWeights) {
  const auto model = TrainModel::Full(*base_, *ops_, stream_).value();
  Check(*model, false);
}

TEST_P(GradientTest, OfAnAdapter) {
  const auto model = Adapter(/*use_dora=*/false);
  Check(*model, false);
}

TEST_P(GradientTest, OfTheMagnitudesOfDora) {
  const auto model = Adapter(/*use_dora=*/true);
  Check(*model, true);
}

INSTANTIATE_TEST_SUITE_P(Models, GradientTest,
                         ::testing::Values("llama-gqa-tied",
                                           "llama-mha-bias-f16", "llama-yarn",
                                           "mistral-swa16", "qwen2-bias-tied",
                                           "qwen3-qknorm"),
                         [](const auto& p) {
                           std::string name = p.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace lorikeet::testing
