// `lorikeet merged`: what a server has merged and why, and whether its base is
// what it was.

#ifndef LORIKEET_CLI_MERGED_H_
#define LORIKEET_CLI_MERGED_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds the subcommand; `exit_code` must outlive the parsing.
void AddMergedCommand(CLI::App& app, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_MERGED_H_
