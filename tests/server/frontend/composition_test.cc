#include "server/frontend/composition.h"

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/frontend/error.h"

namespace lorikeet {
namespace {

using ::testing::HasSubstr;

// What an adapter of a name is: its rank and the keys of its features.
RequestAdapter Adapter(const std::string& name, int64_t rank,
                       std::vector<std::string> features = {},
                       float scale = 1) {
  auto info = std::make_shared<AdapterVersionInfo>();
  info->key = {"default", name, 1, DigestOf(name)};
  info->max_rank = rank;
  info->features.keys = std::move(features);
  return {std::move(info), scale};
}

absl::Status Check(const std::vector<RequestAdapter>& adapters) {
  ModelInfo model;
  model.max_loras = 3;
  model.max_lora_rank = 64;
  std::vector<AdapterPart> parts;
  for (const RequestAdapter& a : adapters) {
    parts.push_back({a.version->key.name, a.scale});
  }
  return CheckComposition(parts, adapters, model);
}

TEST(CheckPartsTest, ScalesAreFiniteAndInRange) {
  EXPECT_TRUE(CheckParts({{"a", -1.0f}, {"b", 100.0f}, {"c", {}}}).ok());
  for (const float scale : {100.5f, -101.0f, INFINITY, NAN}) {
    const absl::Status status = CheckParts({{"a", 1.0f}, {"b", scale}});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << scale;
    EXPECT_EQ(FieldOf(status), "adapters[1].scale");
    EXPECT_THAT(std::string(status.message()), HasSubstr("[-100, 100]"));
  }
}

TEST(CheckPartsTest, ThereAreAtMostSixteen) {
  EXPECT_TRUE(CheckParts(std::vector<AdapterPart>(16)).ok());
  const absl::Status status = CheckParts(std::vector<AdapterPart>(17));
  EXPECT_EQ(ReasonOf(status), "COMPOSITION_TOO_LARGE");
  EXPECT_THAT(std::string(status.message()), HasSubstr("the limit is 16"));
}

TEST(CheckCompositionTest, PlainAdaptersAreSummedUpToTheRankLimit) {
  EXPECT_TRUE(Check({Adapter("a", 32), Adapter("b", 32)}).ok());
  const absl::Status status = Check({Adapter("a", 32), Adapter("b", 33)});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "COMPOSITION_TOO_LARGE");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("rank 65 in total, max_lora_rank is 64"));
}

TEST(CheckCompositionTest, AdaptersOfASumFitTheSlotsTogether) {
  EXPECT_TRUE(Check({Adapter("a", 1), Adapter("b", 1), Adapter("c", 1),
                     Adapter("a", 1)})
                  .ok())
      << "one slot for both of the same";
  const absl::Status status = Check(
      {Adapter("a", 1), Adapter("b", 1), Adapter("c", 1), Adapter("d", 1)});
  EXPECT_EQ(ReasonOf(status), "COMPOSITION_TOO_LARGE");
  EXPECT_THAT(std::string(status.message()), HasSubstr("max_loras is 3"));
}

TEST(CheckCompositionTest, WhatDoesNotAddUpIsRefusedByPartAndFeature) {
  for (const char* feature :
       {"use_dora", "lora_bias", "bias", "modules_to_save",
        "trainable_token_indices", "alora_invocation_tokens"}) {
    const absl::Status in_sum =
        Check({Adapter("plain", 1), Adapter("other", 1, {feature})});
    EXPECT_EQ(in_sum.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ReasonOf(in_sum), "COMPOSITION_UNSUPPORTED");
    EXPECT_EQ(FieldOf(in_sum), "adapters[1].name");
    EXPECT_THAT(std::string(in_sum.message()), HasSubstr("\"other\""));
    EXPECT_THAT(std::string(in_sum.message()), HasSubstr(feature));
    const absl::Status scaled = Check({Adapter("other", 1, {feature}, 0.5f)});
    EXPECT_EQ(ReasonOf(scaled), "COMPOSITION_UNSUPPORTED");
    EXPECT_EQ(FieldOf(scaled), "adapters[0].scale");
    EXPECT_THAT(std::string(scaled.message()), HasSubstr(feature));
    EXPECT_TRUE(Check({Adapter("other", 100, {feature})}).ok());
  }
}

}  // namespace
}  // namespace lorikeet
