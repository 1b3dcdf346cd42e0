#include "cli/choice.h"

#include "gtest/gtest.h"

namespace lorikeet {
namespace {

class ChoiceTest : public testing::Test {
 protected:
  ChoiceTest() {
    AddChoice<int>(app_, "--tier,-t", &value_, {{"host", 1}, {"disk", 2}},
                   "Where");
  }

  CLI::App app_;
  int value_ = 0;
};

TEST_F(ChoiceTest, SetsTheMeaningOfTheWord) {
  app_.parse("--tier disk");
  EXPECT_EQ(value_, 2);
  app_.parse("-t host");
  EXPECT_EQ(value_, 1);
}

TEST_F(ChoiceTest, LeavesTheValueWithoutTheFlag) {
  app_.parse("");
  EXPECT_EQ(value_, 0);
}

TEST_F(ChoiceTest, RefusesOtherWordsAndNamesTheChoices) {
  try {
    app_.parse("--tier moon");
    FAIL() << "was taken";
  } catch (const CLI::ParseError& error) {
    EXPECT_EQ(std::string(error.what()), "--tier: moon not in {host,disk}");
  }
  EXPECT_EQ(value_, 0);
}

}  // namespace
}  // namespace lorikeet
