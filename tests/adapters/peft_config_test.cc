#include "adapters/peft_config.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace lorikeet {
namespace {

absl::StatusOr<PeftConfig> Parse(absl::string_view members) {
  return PeftConfig::Parse(absl::StrCat(
      R"({"peft_type": "LORA")", members.empty() ? "" : ", ", members, "}"));
}

TEST(PeftConfigTest, HasTheDefaultsOfPeft) {
  const auto config = Parse("");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->r, 8);
  EXPECT_EQ(config->lora_alpha, 8);
  EXPECT_FALSE(config->use_rslora);
  EXPECT_FALSE(config->target_modules.has_value());
  EXPECT_TRUE(config->warnings.empty());
}

TEST(PeftConfigTest, ReadsListsAndStrings) {
  const auto config = Parse(
      R"("target_modules": ["a", "b"], "exclude_modules": ".*x",
         "layers_to_transform": 3, "layers_pattern": "h",
         "rank_pattern": {"z": 1, "a": 2}, "alpha_pattern": {"z": 0.5})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->target_modules->names.size(), 2u);
  EXPECT_EQ(*config->exclude_modules->regex, ".*x");
  EXPECT_EQ(config->layers_to_transform, std::vector<int64_t>{3});
  EXPECT_EQ(config->layers_pattern, std::vector<std::string>{"h"});
  ASSERT_EQ(config->rank_pattern.size(), 2u);
  EXPECT_EQ(config->rank_pattern[0].first, "z");  // the order of the file
}

// Each of these has to be refused with `code`, naming `key`.
struct Refused {
  const char* members;
  const char* key;
  absl::StatusCode code;
};
constexpr auto kUnsupported = absl::StatusCode::kUnimplemented;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class RefusedConfigTest : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedConfigTest, IsRefusedByTheKeyName) {
  const auto config = Parse(GetParam().members);
  ASSERT_FALSE(config.ok()) << GetParam().members;
  EXPECT_EQ(config.status().code(), GetParam().code) << config.status();
  EXPECT_TRUE(absl::StrContains(config.status().message(),
                                absl::StrCat("\"", GetParam().key, "\"")))
      << config.status();
}

INSTANTIATE_TEST_SUITE_P(
    Features, RefusedConfigTest,
    ::testing::Values(
        Refused{R"("use_qalora": true)", "use_qalora", kUnsupported},
        Refused{R"("layer_replication": [[0, 1]])", "layer_replication",
                kUnsupported},
        Refused{R"("target_parameters": ["x"])", "target_parameters",
                kUnsupported},
        Refused{R"("megatron_config": {"a": 1})", "megatron_config",
                kUnsupported},
        Refused{R"("use_bdlora": {})", "use_bdlora", kUnsupported},
        Refused{R"("kasa_config": {})", "kasa_config", kUnsupported},
        Refused{R"("arrow_config": {})", "arrow_config", kUnsupported},
        Refused{R"("init_lora_weights": "pissa")", "init_lora_weights",
                kUnsupported},
        Refused{R"("init_lora_weights": "pissa_niter_16")", "init_lora_weights",
                kUnsupported},
        Refused{R"("init_lora_weights": "olora")", "init_lora_weights",
                kUnsupported},
        Refused{R"("init_lora_weights": "lora_ga")", "init_lora_weights",
                kUnsupported},
        Refused{R"("use_magic": 1)", "use_magic", kUnsupported}));

INSTANTIATE_TEST_SUITE_P(
    Values, RefusedConfigTest,
    ::testing::Values(
        Refused{R"("r": 0)", "r", kInvalid},
        Refused{R"("r": null)", "r", kInvalid},
        Refused{R"("r": true)", "r", kInvalid},
        Refused{R"("r": 4611686018427387904)", "r", kInvalid},
        Refused{R"("lora_alpha": 0)", "lora_alpha", kInvalid},
        Refused{R"("lora_alpha": 1e300)", "lora_alpha", kInvalid},
        Refused{R"("lora_alpha": null)", "lora_alpha", kInvalid},
        Refused{R"("use_rslora": 1)", "use_rslora", kInvalid},
        Refused{R"("use_dora": "yes")", "use_dora", kInvalid},
        Refused{R"("bias": "some")", "bias", kInvalid},
        Refused{R"("target_modules": 3)", "target_modules", kInvalid},
        Refused{R"("target_modules": [3])", "target_modules", kInvalid},
        Refused{R"("target_modules": [""])", "target_modules", kInvalid},
        Refused{R"("exclude_modules": {})", "exclude_modules", kInvalid},
        Refused{R"("layers_to_transform": "1")", "layers_to_transform",
                kInvalid},
        Refused{R"("layers_to_transform": [1.5])", "layers_to_transform",
                kInvalid},
        Refused{R"("layers_pattern": "h")", "layers_pattern", kInvalid},
        Refused{R"("target_modules": "x", "layers_to_transform": [1])",
                "layers_to_transform", kInvalid},
        Refused{R"("rank_pattern": null)", "rank_pattern", kInvalid},
        Refused{R"("rank_pattern": {"a": 1.5})", "rank_pattern", kInvalid},
        Refused{R"("rank_pattern": {"a": true})", "rank_pattern", kInvalid},
        Refused{R"("alpha_pattern": {"a": 0})", "alpha_pattern", kInvalid},
        Refused{R"("alpha_pattern": [])", "alpha_pattern", kInvalid},
        Refused{R"("init_lora_weights": 3)", "init_lora_weights", kInvalid}));

INSTANTIATE_TEST_SUITE_P(
    Variants, RefusedConfigTest,
    ::testing::Values(
        Refused{R"("lora_bias": true, "use_dora": true)", "lora_bias",
                kInvalid},
        Refused{R"("bias": "lora")", "bias", kInvalid},
        Refused{R"("modules_to_save": "lm_head")", "modules_to_save", kInvalid},
        Refused{R"("modules_to_save": [1])", "modules_to_save", kInvalid},
        Refused{R"("trainable_token_indices": [])", "trainable_token_indices",
                kInvalid},
        Refused{R"("trainable_token_indices": 3)", "trainable_token_indices",
                kInvalid},
        Refused{R"("trainable_token_indices": [-1])", "trainable_token_indices",
                kInvalid},
        Refused{R"("trainable_token_indices": [4, 1, 4])",
                "trainable_token_indices", kInvalid},
        Refused{R"("trainable_token_indices": {"lm_head": []})",
                "trainable_token_indices", kInvalid},
        Refused{R"("alora_invocation_tokens": [1.5])",
                "alora_invocation_tokens", kInvalid},
        Refused{R"("alora_invocation_tokens": [1], "use_dora": true)",
                "alora_invocation_tokens", kUnsupported},
        Refused{R"("alora_invocation_tokens": [1], "bias": "all")",
                "alora_invocation_tokens", kUnsupported},
        Refused{
            R"("alora_invocation_tokens": [1], "modules_to_save": ["norm"])",
            "alora_invocation_tokens", kUnsupported},
        Refused{R"("alora_invocation_tokens": [1],
                   "trainable_token_indices": [1])",
                "alora_invocation_tokens", kUnsupported}));

TEST(PeftConfigTest, ReadsWhatGoesBeyondPlainLora) {
  auto config = Parse(
      R"("use_dora": true, "bias": "lora_only", "ensure_weight_tying": true,
         "modules_to_save": ["norm", "lm_head"])");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->use_dora && config->ensure_weight_tying);
  EXPECT_EQ(config->bias, PeftConfig::Bias::kLoraOnly);
  EXPECT_EQ(config->modules_to_save,
            (std::vector<std::string>{"norm", "lm_head"}));
  config = Parse(R"("lora_bias": true, "bias": "all",
                    "alora_invocation_tokens": null,
                    "trainable_token_indices": {"lm_head": [9, 2]})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->lora_bias);
  EXPECT_EQ(config->bias, PeftConfig::Bias::kAll);
  ASSERT_EQ(config->trainable_tokens.size(), 1u);
  EXPECT_EQ(config->trainable_tokens[0].module, "lm_head");
  EXPECT_EQ(config->trainable_tokens[0].indices, (std::vector<int64_t>{9, 2}));
  config = Parse(R"("trainable_token_indices": [3],
                    "alora_invocation_tokens": [])");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->trainable_tokens[0].module, "embed_tokens");
  config = Parse(R"("alora_invocation_tokens": [7, 7])");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->alora_invocation_tokens, (std::vector<int64_t>{7, 7}));
}

TEST(PeftConfigTest, AcceptsWhatIsNeutralAtInference) {
  for (const char* members :
       {R"("lora_dropout": 0.1, "inference_mode": false, "revision": "x")",
        R"("task_type": "CAUSAL_LM", "peft_version": "0.21.2")",
        R"("loftq_config": {"a": 1}, "eva_config": {"b": 2})",
        R"("corda_config": {"a": 1}, "lora_ga_config": {"b": 2})",
        R"("megatron_core": "megatron.core", "megatron_config": null)",
        R"("init_lora_weights": "gaussian")", R"("init_lora_weights": "eva")",
        R"("init_lora_weights": false)", R"("modules_to_save": [])",
        R"("alora_invocation_tokens": [])", R"("use_bdlora": null)",
        R"("ensure_weight_tying": true)", R"("layers_to_transform": [])",
        R"("a": null, "b": false, "c": 0, "d": "", "e": [], "f": {})",
        R"("qalora_group_size": 16, "runtime_config": {"x": true})"}) {
    const auto config = Parse(members);
    ASSERT_TRUE(config.ok()) << members << ": " << config.status();
    EXPECT_TRUE(config->warnings.empty()) << members;
  }
}

TEST(PeftConfigTest, WarnsOfWhatItIgnores) {
  for (const char* members :
       {R"("fan_in_fan_out": true)", R"("velora_config": {"a": 1})",
        R"("monteclora_config": {"a": 1})", R"("task_type": "SEQ_CLS")"}) {
    const auto config = Parse(members);
    ASSERT_TRUE(config.ok()) << members << ": " << config.status();
    EXPECT_EQ(config->warnings.size(), 1u) << members;
  }
}

TEST(PeftConfigTest, RefusesWhatIsNoLoraObject) {
  for (const char* text : {"", "[]", "3", "{", "{\"peft_type\": \"IA3\"}",
                           "{\"peft_type\": \"lora\"}", "{}",
                           "{\"peft_type\": \"LORA\", \"r\": 1, \"r\": 2}"}) {
    const auto config = PeftConfig::Parse(text);
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_TRUE(
        absl::StrContains(config.status().message(), "adapter_config.json"))
        << config.status();
  }
}

TEST(PeftConfigTest, EscapesWhatItQuotes) {
  const auto config = Parse("\"x\\u001b[2J\": 1");
  ASSERT_FALSE(config.ok());
  EXPECT_FALSE(absl::StrContains(config.status().message(), "\x1b"));
}

}  // namespace
}  // namespace lorikeet
