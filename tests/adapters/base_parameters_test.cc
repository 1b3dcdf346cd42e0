#include "adapters/base_parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/adapters/test_adapter.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;

std::map<std::string, std::vector<int64_t>> ShapesOf(const ModelConfig& model) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const BaseParameter& p : BaseParameters(model)) {
    EXPECT_TRUE(shapes.emplace(p.name(), p.shape()).second) << p.name();
  }
  return shapes;
}

TEST(BaseParametersTest, ListsEveryParameterOnceWithItsShape) {
  const auto shapes = ShapesOf(testing::SmallModel());
  EXPECT_EQ(shapes.size(), 3u + 2 * (7 + 2));
  EXPECT_THAT(shapes.at("model.embed_tokens.weight"), ElementsAre(16, 8));
  EXPECT_THAT(shapes.at("lm_head.weight"), ElementsAre(16, 8));
  EXPECT_THAT(shapes.at("model.norm.weight"), ElementsAre(8));
  EXPECT_THAT(shapes.at("model.layers.1.self_attn.k_proj.weight"),
              ElementsAre(4, 8));
  EXPECT_THAT(shapes.at("model.layers.0.mlp.down_proj.weight"),
              ElementsAre(8, 12));
  EXPECT_THAT(shapes.at("model.layers.0.input_layernorm.weight"),
              ElementsAre(8));
}

TEST(BaseParametersTest, BiasesAndHeadNormsAreThereWhereTheModelHasThem) {
  ModelConfig model = testing::SmallModel();
  model.qkv_bias = true;
  model.qk_norm = true;
  const auto shapes = ShapesOf(model);
  EXPECT_THAT(shapes.at("model.layers.1.self_attn.k_proj.bias"),
              ElementsAre(4));
  EXPECT_EQ(shapes.count("model.layers.1.self_attn.o_proj.bias"), 0u);
  EXPECT_EQ(shapes.count("model.layers.1.mlp.up_proj.bias"), 0u);
  EXPECT_THAT(shapes.at("model.layers.1.self_attn.q_norm.weight"),
              ElementsAre(4));
}

}  // namespace
}  // namespace lorikeet
