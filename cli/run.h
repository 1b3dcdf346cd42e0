// `lorikeet run`: answers a file of requests offline, without a server.

#ifndef LORIKEET_CLI_RUN_H_
#define LORIKEET_CLI_RUN_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds the subcommand; its callback sets *exit_code.
void AddRunCommand(CLI::App& app, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_RUN_H_
