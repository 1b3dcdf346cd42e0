// `lorikeet train`: trains an adapter, or all weights, on this machine.

#ifndef LORIKEET_CLI_TRAIN_H_
#define LORIKEET_CLI_TRAIN_H_

#include <CLI/CLI.hpp>

namespace lorikeet {

// Adds the subcommand; *exit_code is set when it ran.
void AddTrainCommand(CLI::App& app, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_TRAIN_H_
