#include "cli/channel.h"

#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "base/reason.h"
#include "cli/table.h"

namespace lorikeet {

void AddServerFlags(CLI::App& app, ServerFlags* flags) {
  app.add_option("--server", flags->server, "Address of the server")
      ->type_name("HOST:PORT")
      ->envname("LORIKEET_SERVER")
      ->capture_default_str();
  app.add_option("--timeout", flags->timeout_s,
                 "Longest time of a call in seconds; 0 = no limit")
      ->type_name("S")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

std::string DescribeError(const absl::Status& status) {
  std::string text = absl::StrCat(absl::StatusCodeToString(status.code()), ": ",
                                  Printable(status.message()));
  if (const std::string reason = ReasonOf(status); !reason.empty()) {
    absl::StrAppend(&text, " [", Printable(reason), "]");
  }
  return text;
}

int ReportError(const absl::Status& status) {
  if (status.ok()) return 0;
  std::fprintf(stderr, "lorikeet: %s\n", DescribeError(status).c_str());
  return absl::IsInvalidArgument(status) ? 2 : 1;
}

}  // namespace lorikeet
