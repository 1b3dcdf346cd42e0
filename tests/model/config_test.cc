// Every family, and what a missing or odd key means in transformers.

#include "model/config.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A config.json of a family with `extra` members, which end in a comma.
std::string Text(const std::string& architecture, const std::string& model_type,
                 const std::string& extra = "") {
  return absl::StrCat(R"({"architectures": [")", architecture,
                      R"("], "model_type": ")", model_type, R"(", )", extra,
                      R"("vocab_size": 512, "hidden_size": 64,
                      "intermediate_size": 160, "num_hidden_layers": 3,
                      "num_attention_heads": 32})");
}

std::string Llama(const std::string& extra = "") {
  return Text("LlamaForCausalLM", "llama", extra);
}

ModelConfig ParseOk(const std::string& text) {
  const absl::StatusOr<ModelConfig> config = ModelConfig::Parse(text);
  EXPECT_TRUE(config.ok()) << config.status() << "\n" << text;
  return config.ok() ? *config : ModelConfig();
}

std::string ParseError(const std::string& text) {
  const absl::StatusOr<ModelConfig> config = ModelConfig::Parse(text);
  EXPECT_FALSE(config.ok()) << text;
  return std::string(config.status().message());
}

TEST(ConfigTest, LlamaDefaults) {
  const ModelConfig c = ParseOk(Llama());
  EXPECT_EQ(c.architecture, "LlamaForCausalLM");
  EXPECT_EQ(c.num_kv_heads, 32);
  EXPECT_EQ(c.head_dim, 2);
  EXPECT_EQ(c.max_position, 2048);
  EXPECT_EQ(c.rms_norm_eps, 1e-6f);
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_FALSE(c.qkv_bias || c.o_bias || c.mlp_bias || c.qk_norm);
  EXPECT_EQ(c.rope.kind, RopeConfig::Kind::kDefault);
  EXPECT_EQ(c.rope.theta, 10000);
  EXPECT_EQ(c.rope.attention_factor, 1);
  EXPECT_THAT(c.sliding_window, ElementsAre(0, 0, 0));
  EXPECT_THAT(c.eos_tokens, IsEmpty());
}

TEST(ConfigTest, SmolLm2IsALlama) {
  const ModelConfig c =
      ParseOk(Llama(R"("is_llama_config": true, "rope_interleaved": false,
               "rope_scaling": null, "rope_theta": 100000,
               "tie_word_embeddings": true, "pad_token_id": 2,
               "transformers.js_config": {"dtype": "q4"},)"));
  EXPECT_EQ(c.rope.theta, 100000);
  EXPECT_TRUE(c.tie_word_embeddings);
}

TEST(ConfigTest, FamiliesHaveTheirBiasesAndNorms) {
  ModelConfig c =
      ParseOk(Llama(R"("attention_bias": true, "mlp_bias": true,)"));
  EXPECT_TRUE(c.qkv_bias && c.o_bias && c.mlp_bias && !c.qk_norm);
  c = ParseOk(Text("MistralForCausalLM", "mistral",
                   R"("attention_bias": true, "mlp_bias": true,)"));
  EXPECT_FALSE(c.qkv_bias || c.o_bias || c.mlp_bias || c.qk_norm);
  c = ParseOk(Text("Qwen2ForCausalLM", "qwen2"));
  EXPECT_TRUE(c.qkv_bias && !c.o_bias && !c.mlp_bias && !c.qk_norm);
  c = ParseOk(Text("Qwen3ForCausalLM", "qwen3"));
  EXPECT_TRUE(!c.qkv_bias && !c.o_bias && !c.mlp_bias && c.qk_norm);
  c = ParseOk(Text("Qwen3ForCausalLM", "qwen3", R"("attention_bias": true,)"));
  EXPECT_TRUE(c.qkv_bias && c.o_bias && c.qk_norm);
}

TEST(ConfigTest, MissingKvHeadsDependOnTheFamily) {
  EXPECT_EQ(ParseOk(Text("MistralForCausalLM", "mistral")).num_kv_heads, 8);
  EXPECT_EQ(ParseOk(Text("Qwen2ForCausalLM", "qwen2")).num_kv_heads, 32);
  EXPECT_EQ(ParseOk(Text("Qwen3ForCausalLM", "qwen3")).num_kv_heads, 32);
  for (const auto& [architecture, model_type] :
       {std::pair("LlamaForCausalLM", "llama"),
        std::pair("MistralForCausalLM", "mistral"),
        std::pair("Qwen2ForCausalLM", "qwen2"),
        std::pair("Qwen3ForCausalLM", "qwen3")}) {
    EXPECT_EQ(ParseOk(Text(architecture, model_type,
                           R"("num_key_value_heads": null,)"))
                  .num_kv_heads,
              32);
  }
}

TEST(ConfigTest, HeadDimIsHiddenByHeadsButNotInQwen3) {
  EXPECT_EQ(ParseOk(Llama(R"("head_dim": 128,)")).head_dim, 128);
  EXPECT_EQ(ParseOk(Llama(R"("head_dim": null,)")).head_dim, 2);
  EXPECT_EQ(ParseOk(Text("Qwen3ForCausalLM", "qwen3")).head_dim, 128);
  EXPECT_EQ(ParseOk(Text("Qwen3ForCausalLM", "qwen3")).q_dim(), 4096);
}

TEST(ConfigTest, WindowOfMistralIsOnUnlessNull) {
  const auto windows = [](const std::string& extra) {
    return ParseOk(Text("MistralForCausalLM", "mistral", extra)).sliding_window;
  };
  EXPECT_THAT(windows(""), Each(4096));
  EXPECT_THAT(windows(R"("sliding_window": null,)"), Each(0));
  EXPECT_THAT(windows(R"("sliding_window": 16,)"), Each(16));
}

TEST(ConfigTest, WindowOfQwenIsOffUnlessUsed) {
  for (const auto& [architecture, model_type] :
       {std::pair("Qwen2ForCausalLM", "qwen2"),
        std::pair("Qwen3ForCausalLM", "qwen3")}) {
    const auto windows = [&](const std::string& extra) {
      return ParseOk(Text(architecture, model_type, extra)).sliding_window;
    };
    EXPECT_THAT(windows(R"("sliding_window": 32,)"), Each(0));
    EXPECT_THAT(windows(R"("sliding_window": 32, "use_sliding_window": true,
                           "max_window_layers": 1,)"),
                ElementsAre(0, 32, 32));
    // 28 layers by default.
    EXPECT_THAT(windows(R"("sliding_window": 32, "use_sliding_window": true,)"),
                Each(0));
    EXPECT_THAT(windows(R"("sliding_window": null, "use_sliding_window": true,
                           "max_window_layers": 0,)"),
                Each(0));
    EXPECT_THAT(windows(R"("sliding_window": 32, "use_sliding_window": true,
                           "layer_types": ["sliding_attention",
                           "full_attention", "sliding_attention"],)"),
                ElementsAre(32, 0, 32));
  }
}

TEST(ConfigTest, RopeScalingWinsOverRopeParameters) {
  const ModelConfig c = ParseOk(
      Llama(R"("rope_theta": 3, "rope_scaling": {"type": "linear", "factor": 4},
               "rope_parameters": {"rope_type": "default", "rope_theta": 7},)"));
  EXPECT_EQ(c.rope.kind, RopeConfig::Kind::kLinear);
  EXPECT_EQ(c.rope.factor, 4);
  EXPECT_EQ(c.rope.theta, 3);
}

TEST(ConfigTest, RopeThetaInsideWinsOverTopLevel) {
  const ModelConfig c =
      ParseOk(Llama(R"("rope_theta": 3, "rope_scaling": null, "rope_parameters":
               {"rope_type": "default", "rope_theta": 7},)"));
  EXPECT_EQ(c.rope.kind, RopeConfig::Kind::kDefault);
  EXPECT_EQ(c.rope.theta, 7);
}

TEST(ConfigTest, RopeTypeWinsOverType) {
  const ModelConfig c = ParseOk(Llama(
      R"("rope_scaling": {"type": "yarn", "rope_type": "linear", "factor": 2},)"));
  EXPECT_EQ(c.rope.kind, RopeConfig::Kind::kLinear);
}

TEST(ConfigTest, Llama3RopeReadsTheSameInBothSpellings) {
  const std::string inner = R"("factor": 8.0, "high_freq_factor": 4.0,
      "low_freq_factor": 1.0, "original_max_position_embeddings": 64,
      "rope_type": "llama3")";
  for (const std::string& extra :
       {absl::StrCat(R"("rope_theta": 500000.0, "rope_scaling": {)", inner,
                     "},"),
        absl::StrCat(R"("rope_parameters": {"rope_theta": 500000.0, )", inner,
                     "},")}) {
    const ModelConfig c = ParseOk(Llama(extra));
    EXPECT_EQ(c.rope.kind, RopeConfig::Kind::kLlama3);
    EXPECT_EQ(c.rope.theta, 500000);
    EXPECT_EQ(c.rope.factor, 8);
    EXPECT_EQ(c.rope.low_freq_factor, 1);
    EXPECT_EQ(c.rope.high_freq_factor, 4);
    EXPECT_EQ(c.rope.original_max_position, 64);
  }
}

TEST(ConfigTest, YarnDefaults) {
  const ModelConfig c =
      ParseOk(Llama(R"("rope_parameters": {"rope_type": "yarn", "factor": 4.0,
               "original_max_position_embeddings": 64},)"));
  EXPECT_EQ(c.rope.kind, RopeConfig::Kind::kYarn);
  EXPECT_EQ(c.rope.beta_fast, 32);
  EXPECT_EQ(c.rope.beta_slow, 1);
  EXPECT_TRUE(c.rope.truncate);
  EXPECT_NEAR(c.rope.attention_factor, 1.1386294361, 1e-9);
}

TEST(ConfigTest, EndTokensAreANumberOrAList) {
  EXPECT_THAT(ParseOk(Llama(R"("eos_token_id": 7,)")).eos_tokens,
              ElementsAre(7));
  EXPECT_THAT(ParseOk(Llama(R"("eos_token_id": [7, 2],)")).eos_tokens,
              ElementsAre(7, 2));
  EXPECT_THAT(ParseOk(Llama(R"("eos_token_id": null,)")).eos_tokens, IsEmpty());
}

TEST(ConfigTest, DtypeHasAnOldAndANewName) {
  EXPECT_EQ(ParseOk(Llama(R"("torch_dtype": "float16",)")).dtype, "float16");
  EXPECT_EQ(ParseOk(Llama(R"("dtype": "bfloat16",)")).dtype, "bfloat16");
}

TEST(ConfigTest, AcceptsArchitectureOrModelTypeAlone) {
  EXPECT_EQ(ParseOk(R"({"model_type": "qwen2", "vocab_size": 8,
      "hidden_size": 64, "intermediate_size": 8, "num_hidden_layers": 1,
      "num_attention_heads": 32})")
                .architecture,
            "Qwen2ForCausalLM");
}

TEST(ConfigTest, RefusesOtherArchitecturesByName) {
  const absl::StatusOr<ModelConfig> config =
      ModelConfig::Parse(Text("GPT2LMHeadModel", "gpt2"));
  EXPECT_EQ(config.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(
      std::string(config.status().message()),
      ::testing::AllOf(HasSubstr("GPT2LMHeadModel"), HasSubstr("\"gpt2\"")));
  EXPECT_THAT(ParseError(Text("LlamaForCausalLM", "mamba")),
              HasSubstr("mamba"));
  EXPECT_THAT(ParseError(Text("LlamaForSequenceClassification", "llama")),
              HasSubstr("LlamaForSequenceClassification"));
}

struct Refused {
  const char* extra;
  const char* message;
};

class ConfigRefusesTest : public ::testing::TestWithParam<Refused> {};

TEST_P(ConfigRefusesTest, NamingTheField) {
  EXPECT_THAT(ParseError(Llama(GetParam().extra)),
              HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, ConfigRefusesTest,
    ::testing::Values(
        Refused{R"("quantization_config": {"bits": 4},)",
                "quantization_config"},
        Refused{R"("hidden_act": "gelu",)", "hidden_act"},
        Refused{R"("num_key_value_heads": 3,)", "num_key_value_heads"},
        Refused{R"("num_key_value_heads": 0,)", "num_key_value_heads"},
        Refused{R"("head_dim": 7,)", "head_dim"},
        Refused{R"("head_dim": -2,)", "head_dim"},
        Refused{R"("head_dim": 4611686018427387904,)", "head_dim"},
        Refused{R"("rms_norm_eps": -1,)", "rms_norm_eps"},
        Refused{R"("rms_norm_eps": "1e-5",)", "rms_norm_eps"},
        Refused{R"("max_position_embeddings": 1e30,)",
                "max_position_embeddings"},
        Refused{R"("tie_word_embeddings": 1,)", "tie_word_embeddings"},
        Refused{R"("rope_interleaved": true,)", "rope_interleaved"},
        Refused{R"("partial_rotary_factor": 0.5,)", "partial_rotary_factor"},
        Refused{R"("rope_theta": 0,)", "rope_theta"},
        Refused{R"("rope_scaling": 3,)", "rope_scaling"},
        Refused{R"("rope_scaling": {"rope_type": "dynamic", "factor": 2},)",
                "dynamic"},
        Refused{R"("rope_scaling": {"type": "linear"},)", "factor"},
        Refused{R"("rope_scaling": {"type": "linear", "factor": 0},)",
                "factor"},
        Refused{R"("rope_scaling": {"rope_type": "llama3", "factor": 8,
                   "high_freq_factor": 4,
                   "original_max_position_embeddings": 32},)",
                "low_freq_factor"},
        Refused{R"("rope_scaling": {"rope_type": "llama3", "factor": 8,
                   "high_freq_factor": 4, "low_freq_factor": 4,
                   "original_max_position_embeddings": 32},)",
                "high_freq_factor"},
        Refused{R"("rope_parameters": {"full_attention":
                   {"rope_type": "default"}},)",
                "full_attention"},
        Refused{R"("eos_token_id": "2",)", "eos_token_id"},
        Refused{R"("eos_token_id": [2, -1],)", "eos_token_id"}));

TEST(ConfigTest, RefusesSizesBeyondEveryModel) {
  for (const std::string key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads"}) {
    for (const std::string value :
         {"0", "-1", "2000000000", "9223372036854775807", "1e300", "1.5",
          "\"8\"", "[8]", "true"}) {
      std::string text = Llama();
      const size_t at = text.find(absl::StrCat("\"", key, "\": "));
      const size_t begin = at + key.size() + 4;
      text.replace(begin, text.find_first_of(",}", begin) - begin, value);
      EXPECT_THAT(ParseError(text), HasSubstr(key));
    }
  }
}

TEST(ConfigTest, NamesTheRequiredFieldThatIsMissing) {
  for (const std::string key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads"}) {
    std::string text = Llama();
    text.replace(text.find(key), key.size(), "other");
    EXPECT_THAT(ParseError(text), HasSubstr(key));
  }
}

TEST(ConfigTest, RefusesWhatIsNoObject) {
  EXPECT_THAT(ParseError("{nope"), HasSubstr("config.json"));
  EXPECT_THAT(ParseError("[]"), HasSubstr("config.json"));
  EXPECT_THAT(ParseError(""), HasSubstr("config.json"));
  EXPECT_THAT(ParseError("{}"), HasSubstr("architectures"));
}

}  // namespace
}  // namespace lorikeet
