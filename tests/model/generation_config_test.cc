#include "model/generation_config.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

TEST(GenerationConfigTest, ReadsWhatIsThere) {
  const auto c = GenerationConfig::Parse(
      R"({"eos_token_id": [499, 2], "do_sample": true, "temperature": 0.6,
          "top_p": 0.9, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1,
          "bos_token_id": 1, "transformers_version": "5.23.0"})");
  ASSERT_TRUE(c.ok()) << c.status();
  EXPECT_THAT(c->eos_tokens, Optional(ElementsAre(499, 2)));
  EXPECT_THAT(c->do_sample, Optional(true));
  EXPECT_THAT(c->temperature, Optional(0.6f));
  EXPECT_THAT(c->top_p, Optional(0.9f));
  EXPECT_THAT(c->top_k, Optional(20));
  EXPECT_THAT(c->min_p, Optional(0.05f));
  EXPECT_THAT(c->repetition_penalty, Optional(1.1f));
}

TEST(GenerationConfigTest, AbsentAndNullFieldsAreAbsent) {
  const auto c =
      GenerationConfig::Parse(R"({"temperature": null, "eos_token_id": null})");
  ASSERT_TRUE(c.ok()) << c.status();
  EXPECT_FALSE(c->eos_tokens.has_value());
  EXPECT_FALSE(c->do_sample.has_value());
  EXPECT_FALSE(c->temperature.has_value());
  EXPECT_FALSE(c->top_p.has_value());
  EXPECT_FALSE(c->top_k.has_value());
  EXPECT_FALSE(c->min_p.has_value());
  EXPECT_FALSE(c->repetition_penalty.has_value());
}

TEST(GenerationConfigTest, RefusesByName) {
  for (const char* const text :
       {R"({"temperature": -1})", R"({"top_p": 0})", R"({"top_p": 1.5})",
        R"({"top_k": -1})", R"({"min_p": 2})", R"({"repetition_penalty": 0})",
        R"({"eos_token_id": "x"})", R"({"do_sample": 1})", "[1]", "nope"}) {
    const auto c = GenerationConfig::Parse(text);
    ASSERT_FALSE(c.ok()) << text;
    EXPECT_THAT(std::string(c.status().message()),
                HasSubstr("generation_config.json"));
  }
}

}  // namespace
}  // namespace lorikeet
