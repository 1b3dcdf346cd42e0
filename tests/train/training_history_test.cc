#include "train/training_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorikeet {
namespace {

using ::testing::HasSubstr;

TrainingHistory Example() {
  TrainingHistory history;
  history.steps = {{1, 2.5, 0.001, 3, 100, 10}, {2, 1.25, 0.25, 1.5, 90, 9}};
  history.evals = {{2, 1.125, 0.75}};
  return history;
}

TEST(TrainingHistoryTest, TheCsvHasALineAStep) {
  EXPECT_EQ(Example().ToCsv(),
            "step,loss,learning_rate,gradient_norm,tokens,targets,eval_loss,"
            "eval_exact_match\n"
            "1,2.5,0.001,3.0,100,10,,\n"
            "2,1.25,0.25,1.5,90,9,1.125,0.75\n");
}

TEST(TrainingHistoryTest, ThePictureHasADotForEveryStepAndEvaluation) {
  const std::string svg = Example().ToSvg();
  EXPECT_THAT(svg, ::testing::StartsWith("<svg "));
  EXPECT_THAT(svg, ::testing::EndsWith("</svg>\n"));
  EXPECT_THAT(svg, HasSubstr("step 2: loss 1.125, exact match 0.75"));
  size_t dots = 0;
  for (size_t at = svg.find("r=\"1.5\""); at != std::string::npos;
       at = svg.find("r=\"1.5\"", at + 1)) {
    ++dots;
  }
  EXPECT_EQ(dots, 2u);
}

TEST(TrainingHistoryTest, JsonBringsBackTheSameNumbers) {
  const TrainingHistory history = Example();
  const auto text = history.ToJson().Dump();
  const TrainingHistory again =
      TrainingHistory::FromJson(Json::Parse(text).value()).value();
  EXPECT_EQ(again.ToCsv(), history.ToCsv());
}

TEST(TrainingHistoryTest, OtherJsonIsRefused) {
  for (const char* text : {"{}", "{\"steps\": [[1]], \"evals\": []}", "[]"}) {
    EXPECT_FALSE(TrainingHistory::FromJson(Json::Parse(text).value()).ok());
  }
}

}  // namespace
}  // namespace lorikeet
