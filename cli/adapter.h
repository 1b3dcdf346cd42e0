// `lorikeet adapter ...`: registers, lists, swaps and removes adapters of a
// running server.

#ifndef LORIKEET_CLI_ADAPTER_H_
#define LORIKEET_CLI_ADAPTER_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds "adapter" with its subcommands, whose callbacks set *exit_code; returns
// it, so that others can add theirs.
CLI::App* AddAdapterCommands(CLI::App& app, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_ADAPTER_H_
