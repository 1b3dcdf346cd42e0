// `lorikeet demo`: shows the demo adapters and a hot swap on a running server.

#ifndef LORIKEET_CLI_DEMO_H_
#define LORIKEET_CLI_DEMO_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds the subcommand; its callback sets *exit_code.
void AddDemoCommand(CLI::App& app, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_DEMO_H_
