// `lorikeet generate`: sends one prompt and prints the answer.

#ifndef LORIKEET_CLI_GENERATE_H_
#define LORIKEET_CLI_GENERATE_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds the subcommand; its callback sets *exit_code.
void AddGenerateCommand(CLI::App& app, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_GENERATE_H_
