#include "adapters/target_modules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/adapters/test_adapter.h"

namespace lorikeet {
namespace {

// "E H 0q 1q": embed_tokens, lm_head, layer and projection of each linear.
std::string Short(const TargetModules& targets) {
  return absl::StrJoin(
      targets.modules, " ", [](std::string* out, const TargetModule& m) {
        if (!m.id.is_of_layer()) {
          out->append(m.id == LinearId::LmHead() ? "H" : "E");
          return;
        }
        absl::StrAppend(
            out, m.id.layer,
            absl::string_view(
                kProjectionNames[static_cast<size_t>(m.id.projection)])
                .substr(0, 1));
      });
}

absl::StatusOr<TargetModules> Find(absl::string_view members,
                                   ModelConfig model = testing::SmallModel()) {
  const auto config = PeftConfig::Parse(
      absl::StrCat(R"({"peft_type": "LORA", )", members, "}"));
  if (!config.ok()) return config.status();
  return FindTargetModules(*config, model);
}

// The linears that a configuration adapts, or a part of the error's text.
struct Case {
  const char* members;
  const char* expected;
};

class TargetModulesTest : public ::testing::TestWithParam<Case> {};

TEST_P(TargetModulesTest, AdaptsTheSameLinearsAsPeft) {
  const auto targets = Find(GetParam().members);
  ASSERT_TRUE(targets.ok()) << GetParam().members << ": " << targets.status();
  EXPECT_EQ(Short(*targets), GetParam().expected) << GetParam().members;
}

// Short names: q k v o g(ate) u(p) d(own).
INSTANTIATE_TEST_SUITE_P(
    Tables, TargetModulesTest,
    ::testing::Values(
        Case{R"("r": 8)", "0q 0v 1q 1v"},
        Case{R"("target_modules": null)", "0q 0v 1q 1v"},
        Case{R"("target_modules": "all-linear")",
             "0q 0k 0v 0o 0g 0u 0d 1q 1k 1v 1o 1g 1u 1d"},
        Case{R"("target_modules": "ALL-Linear")",
             "0q 0k 0v 0o 0g 0u 0d 1q 1k 1v 1o 1g 1u 1d"},
        Case{R"("target_modules": ["down_proj", "nothing"])", "0d 1d"},
        Case{R"("target_modules": ["self_attn.k_proj"])", "0k 1k"},
        Case{R"("target_modules": ["model.layers.1.mlp.up_proj"])", "1u"},
        Case{R"("target_modules": ".*\\.1\\..*_proj")", "1q 1k 1v 1o 1g 1u 1d"},
        Case{R"("target_modules": ".*(q|o)_proj")", "0q 0o 1q 1o"},
        // Entries of lists are text: the dot of "q.proj" is a dot.
        Case{R"("target_modules": ["q.proj", "v_proj"])", "0v 1v"},
        Case{R"("target_modules": ["q_proj", "v_proj"],
                "exclude_modules": ["v_proj"])",
             "0q 1q"},
        Case{R"("target_modules": ["q_proj"],
                "exclude_modules": ".*layers\\.0\\..*")",
             "1q"},
        Case{R"("target_modules": ["q_proj"], "exclude_modules": "")", "0q 1q"},
        Case{R"("target_modules": "all-linear",
                "exclude_modules": ["mlp.up_proj", "model.layers.0.mlp.gate_proj"])",
             "0q 0k 0v 0o 0d 1q 1k 1v 1o 1g 1d"},
        // layers_to_transform filters names that matched by their end alone.
        Case{R"("target_modules": ["q_proj"], "layers_to_transform": 1)", "1q"},
        Case{R"("target_modules": ["q_proj"], "layers_to_transform": [0, 1])",
             "0q 1q"},
        Case{R"("target_modules":
                ["v_proj", "model.layers.0.self_attn.q_proj"],
                "layers_to_transform": [1])",
             "0q 1v"},
        Case{R"("layers_to_transform": [0])", "0q 0v"},
        Case{R"("target_modules": ["lm_head", "q_proj"])", "H 0q 1q"},
        Case{R"("target_modules": ["embed_tokens", "lm_head"])", "E H"},
        Case{R"x("target_modules": ".*(q_proj|embed_tokens)")x", "E 0q 1q"},
        // lm_head is its own full name, embed_tokens has no layer.
        Case{R"("target_modules": ["lm_head", "embed_tokens", "q_proj"],
                "layers_to_transform": [1])",
             "H 1q"},
        // modules_to_save are patterns here: what they take is not adapted.
        Case{R"("target_modules": ["q_proj", "up_proj"],
                "modules_to_save": ["layers.1.mlp"])",
             "0q 0u 1q"},
        Case{R"x("target_modules": ["q_proj", "lm_head"],
                "modules_to_save": ["0..*", "lm_.*d"])x",
             "1q"},
        Case{R"("target_modules": ["q_proj"], "layers_to_transform": [1],
                "layers_pattern": "layers")",
             "1q"},
        Case{R"("target_modules": ["q_proj"], "layers_to_transform": [1],
                "layers_pattern": ["h", "lay.*"])",
             "1q"},
        Case{R"("target_modules": ["q_proj"], "layers_to_transform": [],
                "layers_pattern": [])",
             "0q 1q"}));

class RefusedTargetTest : public ::testing::TestWithParam<Case> {};

TEST_P(RefusedTargetTest, IsRefusedNamingTheKey) {
  const auto targets = Find(GetParam().members);
  ASSERT_FALSE(targets.ok()) << GetParam().members;
  EXPECT_TRUE(
      absl::StrContains(targets.status().message(), GetParam().expected))
      << targets.status();
}

INSTANTIATE_TEST_SUITE_P(
    Tables, RefusedTargetTest,
    ::testing::Values(
        Case{R"("target_modules": [])", "target_modules"},
        Case{R"("target_modules": "q_proj")", "target_modules"},
        Case{R"("target_modules": "")", "target_modules"},
        Case{R"("target_modules": ["all-linear"])", "all-linear"},
        Case{R"("target_modules": ["proj"])", "target_modules"},
        Case{R"("target_modules": ["mlp"])", "model.layers.0.mlp"},
        Case{R"("target_modules": ".*")", "neither Linear nor Embedding"},
        Case{R"("target_modules": ["norm"])", "model.norm"},
        Case{R"x("modules_to_save": ["("])x", "modules_to_save"},
        Case{R"("target_modules": ["q_proj"], "modules_to_save": ["q_proj"])",
             "target_modules"},
        Case{R"x("target_modules": "(")x", "target_modules"},
        Case{R"("target_modules": ["q_proj"], "exclude_modules": ".*")",
             "exclude_modules"},
        Case{R"("target_modules": ["q_proj"], "exclude_modules": "[")",
             "exclude_modules"},
        Case{R"("target_modules": ["q_proj"], "layers_to_transform": [0, 2])",
             "layers_to_transform"},
        Case{R"("target_modules": ["q_proj"], "layers_to_transform": -1)",
             "layers_to_transform"},
        Case{R"("target_modules": ["q_proj"], "layers_to_transform": [0],
                "layers_pattern": "h")",
             "layers_to_transform"},
        Case{R"("target_modules": ["q_proj"], "layers_to_transform": [0],
                "layers_pattern": "[")",
             "layers_pattern"}));

TEST(FindTargetModulesTest, FiltersFullNamesFromTwentyEntriesOn) {
  // 14 full names of 2 layers, and names of layers that are not there.
  const auto list = [](int layers) {
    std::string members = R"("layers_to_transform": [1], "target_modules": [)";
    for (int i = 0; i < layers; ++i) {
      for (int p = 0; p < kNumProjections; ++p) {
        absl::StrAppend(&members, i + p == 0 ? "" : ", ", "\"model.layers.", i,
                        p < 4 ? ".self_attn." : ".mlp.", kProjectionNames[p],
                        "\"");
      }
    }
    return members + "]";
  };
  // 14 entries are taken as they are: the layer does not matter.
  EXPECT_EQ(Find(list(2))->modules.size(), 14u);
  // 21 entries are shortened to seven suffixes, which the layer filters.
  const auto shortened = Find(list(3));
  ASSERT_TRUE(shortened.ok()) << shortened.status();
  EXPECT_EQ(Short(*shortened), "1q 1k 1v 1o 1g 1u 1d");
}

TEST(FindTargetModulesTest, KnowsTheShapesOfEveryLinear) {
  ModelConfig model = testing::SmallModel();
  model.head_dim = 6;  // q_dim 12, kv_dim 6, hidden 8
  const auto targets = Find(R"("target_modules": "all-linear")", model);
  ASSERT_TRUE(targets.ok());
  const std::vector<std::pair<int64_t, int64_t>> in_out = {
      {8, 12}, {8, 6}, {8, 6}, {12, 8}, {8, 12}, {8, 12}, {12, 8}};
  for (size_t i = 0; i < in_out.size(); ++i) {
    EXPECT_EQ(targets->modules[i].in_dim, in_out[i].first) << i;
    EXPECT_EQ(targets->modules[i].out_dim, in_out[i].second) << i;
  }
}

TEST(FindTargetModulesTest, TakesBothEndsOfATiedBaseIfAskedTo) {
  ModelConfig model = testing::SmallModel();
  const char* members = R"("target_modules": ["embed_tokens", "q_proj"],
                           "ensure_weight_tying": true)";
  EXPECT_EQ(Short(*Find(members, model)), "E 0q 1q");
  model.tie_word_embeddings = true;
  const auto tied = Find(members, model);
  ASSERT_EQ(Short(*tied), "E H 0q 1q");
  EXPECT_EQ(tied->modules[1].pattern_name, "model.embed_tokens");
  EXPECT_EQ(tied->modules[1].in_dim, model.hidden_size);
  EXPECT_EQ(tied->modules[1].out_dim, model.vocab_size);
  EXPECT_EQ(tied->modules[0].in_dim, model.vocab_size);
}

TEST(FindTargetModulesTest, SavedModulesAreFoundByTheEndsOfTheirNames) {
  const auto config = PeftConfig::Parse(
      R"({"peft_type": "LORA", "modules_to_save": ["norm", "layers.1.mlp"]})");
  ASSERT_TRUE(config.ok());
  for (const char* name :
       {"model.norm", "model.layers.0.input_layernorm",
        "model.layers.0.self_attn.q_norm", "model.layers.1.mlp",
        "model.layers.1.mlp.up_proj"}) {
    EXPECT_TRUE(IsSavedModule(*config, name)) << name;
  }
  for (const char* name : {"model", "lm_head", "model.layers.11.self_attn",
                           "model.layers.0.mlp.up_proj"}) {
    EXPECT_FALSE(IsSavedModule(*config, name)) << name;
  }
}

TEST(FindTargetModulesTest, WarnsOfEntriesThatTakeNothing) {
  const auto targets = Find(R"("target_modules": ["q_proj", "c_attn"])");
  ASSERT_TRUE(targets.ok());
  ASSERT_EQ(targets->warnings.size(), 1u);
  EXPECT_THAT(targets->warnings[0], ::testing::HasSubstr("c_attn"));
}

TEST(FindTargetModulesTest, SeesTheNormsOfQwen3) {
  ModelConfig model = testing::SmallModel();
  const char* members = R"x("target_modules": ".*q_(proj|norm)")x";
  EXPECT_TRUE(Find(members, model).ok());
  model.qk_norm = true;
  EXPECT_FALSE(Find(members, model).ok());
}

}  // namespace
}  // namespace lorikeet
