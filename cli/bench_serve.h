// `lorikeet bench serve`: load on a running server, and what it made of it.

#ifndef LORIKEET_CLI_BENCH_SERVE_H_
#define LORIKEET_CLI_BENCH_SERVE_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds the subcommand to `bench`; its callback sets *exit_code.
void AddBenchServeCommand(CLI::App& bench, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_BENCH_SERVE_H_
