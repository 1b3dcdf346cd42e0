#include "train/memory_estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/train/train_fixture.h"

namespace lorikeet::testing {
namespace {

// GPT-3's layers as those of a Llama: three matrices of 32768 have the size of
// its two of 49152.
constexpr char kGpt3[] = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "hidden_size": 12288, "intermediate_size": 32768, "num_hidden_layers": 96,
  "num_attention_heads": 96, "vocab_size": 50257, "rms_norm_eps": 1e-5,
  "max_position_embeddings": 2048, "tie_word_embeddings": true,
  "torch_dtype": "float16"})";

TEST(MemoryEstimateTest, AnAdapterOfGpt3IsTenThousandTimesSmaller) {
  const ModelConfig config = ModelConfig::Parse(kGpt3).value();
  TrainingOptions options;
  options.rank = 4;
  options.target_modules = {"q_proj", "v_proj"};
  const MemoryEstimate lora =
      EstimateLora(config, options, DType::kF16).value();
  const MemoryEstimate full = EstimateFull(config, DType::kF16);
  EXPECT_NEAR(static_cast<double>(full.parameters), 175e9, 1e9);
  EXPECT_EQ(lora.trained_parameters, 96 * 2 * 4 * (12288 + 12288));
  EXPECT_NEAR(static_cast<double>(full.checkpoint_bytes) /
                  static_cast<double>(lora.checkpoint_bytes),
              1e4, 1e3);
}

TEST(MemoryEstimateTest, CountsWhatAJobTrains) {
  TrainMachine machine;
  const ModelConfig& config = machine.base->config();
  HostStream stream;
  for (const bool use_dora : {false, true}) {
    TrainingOptions options;
    options.use_dora = use_dora;
    const auto model = TrainModel::Lora(*machine.base, options.Peft(), 0,
                                        *machine.ops, *machine.train, stream)
                           .value();
    const MemoryEstimate lora =
        EstimateLora(config, options, DType::kBF16).value();
    EXPECT_EQ(lora.trained_parameters, model->parameters().size());
    EXPECT_EQ(lora.optimizer_bytes, 8 * model->parameters().size());
    EXPECT_EQ(lora.parameters, 783232);
  }
  const auto full =
      TrainModel::Full(*machine.base, *machine.ops, stream).value();
  EXPECT_EQ(EstimateFull(config, DType::kBF16).trained_parameters,
            full->parameters().size());
}

TEST(MemoryEstimateTest, AnInt8BaseIsAboutHalfOfOneInBf16) {
  const ModelConfig config = ModelConfig::Parse(kGpt3).value();
  const double int8 = static_cast<double>(
      EstimateLora(config, {}, DType::kI8).value().weight_bytes);
  const double bf16 = static_cast<double>(
      EstimateLora(config, {}, DType::kBF16).value().weight_bytes);
  EXPECT_NEAR(int8 / bf16, 34.0 / 64, 0.01);
}

TEST(MemoryEstimateTest, AModuleThatDoesNotExistIsAnError) {
  TrainingOptions options;
  options.target_modules = {"w_proj"};
  EXPECT_FALSE(
      EstimateLora(ModelConfig::Parse(kGpt3).value(), options, DType::kF16)
          .ok());
}

}  // namespace
}  // namespace lorikeet::testing
