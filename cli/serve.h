// `lorikeet serve`: serves a model with its adapters over gRPC.

#ifndef LORIKEET_CLI_SERVE_H_
#define LORIKEET_CLI_SERVE_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds the subcommand; its callback sets *exit_code.
void AddServeCommand(CLI::App& app, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_SERVE_H_
