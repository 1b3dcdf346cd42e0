#include "base/json.h"

#include <cmath>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string ErrorOf(absl::string_view text, int max_depth = 64) {
  const absl::StatusOr<Json> json = Json::Parse(text, max_depth);
  EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(json.status().message());
}

TEST(JsonTest, KeepsTheOrderOfKeys) {
  const Json json = Json::Parse(R"({"b": 1, "a": 2, "c": 3})").value();
  ASSERT_EQ(json.members().size(), 3u);
  EXPECT_EQ(json.members()[0].first, "b");
  EXPECT_EQ(json.members()[1].first, "a");
  EXPECT_EQ(json.Dump(), R"({"b": 1, "a": 2, "c": 3})");
}

TEST(JsonTest, RefusesAKeyThatStandsTwice) {
  EXPECT_THAT(ErrorOf(R"({"r": 8, "r": 16})"),
              HasSubstr("duplicate key \"r\""));
  EXPECT_TRUE(Json::Parse(R"([{"r": 8}, {"r": 16}])").ok());
}

TEST(JsonTest, RefusesWhatIsNoJsonAndSaysWhere) {
  EXPECT_THAT(ErrorOf("[1, 2"), HasSubstr("at byte"));
  for (const char* text : {"", "  ", "nul", "{'a': 1}", "[1,]", "01", "NaN",
                           "Infinity", "{} {}", "\"\t\"", "\"\xff\"", "+1"}) {
    ErrorOf(text);
  }
}

TEST(JsonTest, RefusesDeepNesting) {
  const std::string deep = std::string(65, '[') + std::string(65, ']');
  EXPECT_THAT(ErrorOf(deep), HasSubstr("nesting deeper than 64"));
  EXPECT_TRUE(Json::Parse(deep, 65).ok());
  // Long before a stack could overflow.
  ErrorOf(std::string(1'000'000, '['));
}

TEST(JsonTest, RefusesANumberOutsideOfDouble) {
  EXPECT_THAT(ErrorOf("[1e400]"), HasSubstr("number out of range"));
}

TEST(JsonTest, IntegersStayIntegers) {
  const Json json =
      Json::Parse("[9223372036854775807, -9223372036854775808, 1.0, 1e2]")
          .value();
  EXPECT_EQ(json.items()[0].AsInt(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(json.items()[1].AsInt(), std::numeric_limits<int64_t>::min());
  EXPECT_FALSE(json.items()[2].is_int());
  EXPECT_EQ(json.items()[2].AsDouble(), 1.0);
  EXPECT_FALSE(json.items()[3].is_int());
}

TEST(JsonTest, AnIntegerBeyondInt64BecomesADouble) {
  const Json json = Json::Parse("18446744073709551615").value();
  EXPECT_FALSE(json.is_int());
  EXPECT_EQ(json.AsDouble(), 18446744073709551615.0);
}

TEST(JsonTest, FloatsReadBackAsTheSameValue) {
  for (const float f : {0.1f, 1.0f / 3, 3.4028235e38f, 1.4e-45f, -0.0f}) {
    const Json read = Json::Parse(Json(f).Dump()).value();
    EXPECT_EQ(static_cast<float>(read.AsDouble()), f) << Json(f).Dump();
  }
  EXPECT_EQ(Json(0.1f).Dump(), "0.1");
  EXPECT_EQ(Json(2.0).Dump(), "2.0");
}

TEST(JsonTest, WritesNonFiniteNumbersAsNull) {
  EXPECT_EQ(Json(std::nan("")).Dump(), "null");
  EXPECT_EQ(Json(std::numeric_limits<float>::infinity()).Dump(), "null");
}

TEST(JsonTest, EscapesStringsAndReplacesBadUtf8) {
  EXPECT_EQ(Json("a\"b\\\n\x01").Dump(), R"("a\"b\\\n\u0001")");
  EXPECT_EQ(Json("x\xff").Dump(), "\"x\xef\xbf\xbd\"");
}

TEST(JsonTest, IndentsOnRequest) {
  const Json json = Json::Parse(R"({"a": [1, {}], "b": []})").value();
  EXPECT_EQ(json.Dump(2),
            "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}");
}

TEST(JsonTest, SetReplacesAndAppendsMembers) {
  Json json = Json::Object();
  json.Set("a", 1);
  json.Set("b", Json::Array());
  json.Set("a", "x");
  EXPECT_EQ(json.Dump(), R"({"a": "x", "b": []})");
  EXPECT_EQ(json.Find("none"), nullptr);
  EXPECT_EQ(Json(1).Find("a"), nullptr);
}

class JsonReaderTest : public ::testing::Test {
 protected:
  const Json json_ =
      Json::Parse(R"({"r": 8, "alpha": 16.0, "half": 0.5, "flag": true,
                      "name": "x", "none": null, "odd": [1]})")
          .value();
  JsonReader reader_{json_, "adapter_config.json"};
};

TEST_F(JsonReaderTest, ReadsValuesAndFallsBackForMissingOrNull) {
  EXPECT_EQ(reader_.Int("r", 0, 1, 10).value(), 8);
  EXPECT_EQ(reader_.Int("alpha", 0, 1, 100).value(), 16);
  EXPECT_EQ(reader_.Int("none", 7, 1, 10).value(), 7);
  EXPECT_EQ(reader_.Double("half", 0, 0, 1).value(), 0.5);
  EXPECT_EQ(reader_.Bool("flag", false).value(), true);
  EXPECT_EQ(reader_.String("name", "").value(), "x");
  EXPECT_EQ(reader_.String("missing", "y").value(), "y");
}

TEST_F(JsonReaderTest, NamesFieldValueAndLimits) {
  EXPECT_EQ(reader_.Int("r", 0, 16, 256).status().message(),
            "adapter_config.json field \"r\" is 8, expected an integer in "
            "[16, 256]");
  EXPECT_THAT(reader_.Int("half", 0, 0, 9).status().message(),
              HasSubstr("is 0.5, expected an integer"));
  EXPECT_THAT(reader_.Bool("odd", false).status().message(),
              HasSubstr("is [1], expected true or false"));
  EXPECT_THAT(reader_.String("r", "").status().message(),
              HasSubstr("is 8, expected a string"));
}

TEST_F(JsonReaderTest, ListsKeysThatNobodyAskedFor) {
  (void)reader_.Int("r", 0, 1, 10);
  (void)reader_.Get("alpha");
  EXPECT_THAT(reader_.UnknownKeys(),
              ElementsAre("half", "flag", "name", "none", "odd"));
}

TEST_F(JsonReaderTest, RequireRefusesMissingAndNull) {
  EXPECT_TRUE(reader_.Require("r").ok());
  EXPECT_THAT(reader_.Require("none").message(), HasSubstr("is missing"));
  EXPECT_THAT(reader_.Require("gone").message(), HasSubstr("\"gone\""));
}

}  // namespace
}  // namespace lorikeet
