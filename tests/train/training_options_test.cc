#include "train/training_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace lorikeet {
namespace {

using ::testing::HasSubstr;

class TrainingOptionsTest : public ::testing::Test {
 protected:
  TrainingOptionsTest() { options_.steps = 10; }
  std::string Error() const { return std::string(options_.Check().message()); }
  TrainingOptions options_;
};

TEST_F(TrainingOptionsTest, TheDefaultsAreFine) { EXPECT_EQ(Error(), ""); }

TEST_F(TrainingOptionsTest, ALearningRateOfZeroOrNanIsRefused) {
  for (const double rate :
       {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    options_.learning_rate = rate;
    EXPECT_THAT(Error(), HasSubstr("--learning-rate is ")) << rate;
    EXPECT_THAT(Error(), HasSubstr("expected a number in (0, 10)"));
  }
}

TEST_F(TrainingOptionsTest, OutOfRangeValuesAreNamedWithTheirLimits) {
  options_.rank = 0;
  EXPECT_EQ(Error(), "--rank is 0, expected an integer in [1, 4096]");
  options_.rank = 8;
  options_.dropout = 1;
  EXPECT_EQ(Error(), "--dropout is 1, expected a number in [0, 1)");
  options_.dropout = 0;
  options_.batch_size = 100;
  options_.gradient_accumulation = 50;
  EXPECT_EQ(Error(),
            "--batch-size times --gradient-accumulation is 5000, expected an "
            "integer in [1, 4096]");
  options_.batch_size = 0;
  EXPECT_THAT(Error(), HasSubstr("--batch-size is 0"));
}

TEST_F(TrainingOptionsTest, StepsOrEpochsAreGivenAndNotBoth) {
  options_.epochs = 2;
  EXPECT_EQ(Error(), "--steps is 10 and --epochs 2, expected one of them");
  options_.steps = options_.epochs = 0;
  EXPECT_EQ(Error(), "--steps is 0 and --epochs 0, expected one of them");
}

TEST_F(TrainingOptionsTest, WarmUpEndsBeforeTheJobDoes) {
  options_.warmup_steps = 10;
  EXPECT_THAT(Error(), HasSubstr("expected fewer than the 10 steps"));
}

TEST_F(TrainingOptionsTest, ModulesBecomePeftsChoice) {
  EXPECT_EQ(options_.Peft().target_modules->regex, "all-linear");
  options_.target_modules = {"q_proj", "v_proj"};
  EXPECT_EQ(options_.Peft().target_modules->names, options_.target_modules);
}

}  // namespace
}  // namespace lorikeet
