#include "cli/table.h"

#include "cli/choice.h"  // CLI::App
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

TEST(TableTest, AlignsColumns) {
  Table table({{"NAME"}, {"RANK", Table::Align::kRight}, {"STATE"}});
  table.AddRow({"reverse", "8", "active"});
  table.AddRow({"up", "16", "draining"});
  EXPECT_EQ(table.ToString(),
            "NAME     RANK  STATE\n"
            "reverse     8  active\n"
            "up         16  draining\n");
}

TEST(TableTest, PrintsTheHeaderAloneIfEmpty) {
  EXPECT_EQ(Table({{"A"}, {"B"}}).ToString(), "A  B\n");
}

TEST(TableTest, LeavesNoWhiteSpaceAtLineEnds) {
  Table table({{"A"}, {"LONG TITLE"}});
  table.AddRow({"x", "y"});
  EXPECT_EQ(table.ToString(), "A  LONG TITLE\nx  y\n");
}

TEST(TableTest, CountsCodePointsAndNotBytes) {
  Table table({{"A"}, {"B"}});
  table.AddRow({"\xC3\xA9\xC3\xA9", "1"});  // two letters, four bytes
  table.AddRow({"abc", "2"});
  EXPECT_EQ(table.ToString(),
            "A    B\n"
            "\xC3\xA9\xC3\xA9   1\n"
            "abc  2\n");
}

TEST(TableTest, ShowsControlCharactersEscaped) {
  Table table({{"PROMPT"}});
  table.AddRow({"Word: fox\nAnswer:"});
  EXPECT_EQ(table.ToString(), "PROMPT\nWord: fox\\nAnswer:\n");
}

TEST(TableTest, ShowsADashForNothing) {
  Table table({{"A"}, {"B"}});
  table.AddRow({"", "x"});
  EXPECT_EQ(table.ToString(), "A  B\n-  x\n");
}

TEST(PrintableTest, IsOneLineAndSafeForATerminal) {
  EXPECT_EQ(Printable("a\nb\tc"), "a\\nb\\tc");
  EXPECT_EQ(Printable("\x1b[2J"), "\\x1b[2J");
  EXPECT_EQ(Printable("no task \"x\""), "no task \"x\"");
  EXPECT_EQ(Printable("\xff"), "\\xff");
  EXPECT_EQ(Printable(""), "");
}

TEST(HumanDurationTest, HasThreeDigits) {
  EXPECT_EQ(HumanDuration(absl::Microseconds(4.5)), "4.50 us");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(3.14159)), "3.14 ms");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(31.4159)), "31.4 ms");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(314.159)), "314 ms");
  EXPECT_EQ(HumanDuration(absl::Seconds(2)), "2.00 s");
  EXPECT_EQ(HumanDuration(absl::Seconds(75)), "75.0 s");
}

TEST(OutputFlagTest, TakesTableAndJsonOnly) {
  CLI::App app;
  OutputFormat format = OutputFormat::kTable;
  AddOutputFlag(app, &format);
  app.parse("--output json");
  EXPECT_EQ(format, OutputFormat::kJson);
  app.parse("-o table");
  EXPECT_EQ(format, OutputFormat::kTable);
  EXPECT_THROW(app.parse("--output xml"), CLI::ParseError);
}

}  // namespace
}  // namespace lorikeet
