// `lorikeet job ...`: training jobs of a server.

#ifndef LORIKEET_CLI_JOB_H_
#define LORIKEET_CLI_JOB_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds the subcommands; `exit_code` must outlive the parsing.
void AddJobCommands(CLI::App& app, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_JOB_H_
