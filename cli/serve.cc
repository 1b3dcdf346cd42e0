#include "cli/serve.h"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <memory>

#include "absl/status/status.h"
#include "base/status.h"
#include "server/options.h"
#include "server/serve.h"

namespace lorikeet {
namespace {

constexpr char kFooter[] =
    "Prints one line \"ready grpc=HOST:PORT\" on stdout when it can serve.\n"
    "SIGTERM finishes running requests within --shutdown-timeout; a second "
    "one ends at once.\n\n"
    "Examples:\n"
    "  lorikeet serve --model demo/base --adapter-root demo\n"
    "  lorikeet serve --model demo/base --lora-modules "
    "upper=demo/adapters/upper --grpc-port 0";

absl::Status RunServe(CLI::App& app, const ServerOptions& options) {
  RETURN_IF_ERROR(ApplyConfigFile(app, options));
  RETURN_IF_ERROR(ApplyLogFlags(options));
  return Serve(options);
}

}  // namespace

void AddServeCommand(CLI::App& parent, int* exit_code) {
  const auto options = std::make_shared<ServerOptions>();
  CLI::App* const app = parent.add_subcommand(
      "serve", "Serve a model and its adapters over gRPC");
  AddModelFlags(*app, options.get());
  AddServeFlags(*app, options.get());
  app->footer(kFooter);
  app->callback([app, options, exit_code] {
    const absl::Status status = RunServe(*app, *options);
    if (status.ok()) return;
    std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
    // A mistake on the command line is 2, as of other commands.
    *exit_code = absl::IsInvalidArgument(status) ? 2 : 1;
  });
}

}  // namespace lorikeet
