#include "cli/channel.h"

#include <cstdlib>

#include "base/reason.h"
#include "cli/choice.h"  // CLI::App
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

TEST(DescribeErrorTest, NamesCodeMessageAndReason) {
  EXPECT_EQ(DescribeError(WithReason(absl::NotFoundError("no task \"x\""),
                                     "TASK_NOT_FOUND")),
            "NOT_FOUND: no task \"x\" [TASK_NOT_FOUND]");
  EXPECT_EQ(DescribeError(absl::InternalError("oops")), "INTERNAL: oops");
}

TEST(DescribeErrorTest, EscapesWhatTheServerSays) {
  EXPECT_EQ(DescribeError(absl::InternalError("a\x1b[2J")),
            "INTERNAL: a\\x1b[2J");
}

TEST(ReportErrorTest, GivesTheExitCode) {
  EXPECT_EQ(ReportError(absl::OkStatus()), 0);
  EXPECT_EQ(ReportError(absl::InvalidArgumentError("x")), 2);
  EXPECT_EQ(ReportError(absl::UnavailableError("x")), 1);
}

TEST(ServerFlagsTest, FlagBeatsEnvironmentBeatsDefault) {
  unsetenv("LORIKEET_SERVER");
  const auto parse = [](const std::string& line) {
    CLI::App app;
    ServerFlags flags;
    AddServerFlags(app, &flags);
    app.parse(line);
    return flags.server;
  };
  EXPECT_EQ(parse(""), "127.0.0.1:8001");
  setenv("LORIKEET_SERVER", "10.0.0.7:9", 1);
  EXPECT_EQ(parse(""), "10.0.0.7:9");
  EXPECT_EQ(parse("--server h:1"), "h:1");
  unsetenv("LORIKEET_SERVER");
}

TEST(ServerFlagsTest, ZeroTimeoutIsNone) {
  ServerFlags flags;
  EXPECT_EQ(flags.timeout(), absl::InfiniteDuration());
  flags.timeout_s = 1.5;
  EXPECT_EQ(flags.timeout(), absl::Milliseconds(1500));
}

}  // namespace
}  // namespace lorikeet
