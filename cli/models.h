// `lorikeet models`: what a request may name as its task.

#ifndef LORIKEET_CLI_MODELS_H_
#define LORIKEET_CLI_MODELS_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds the subcommand; its callback sets *exit_code.
void AddModelsCommand(CLI::App& app, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_MODELS_H_
