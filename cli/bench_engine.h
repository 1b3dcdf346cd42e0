// `lorikeet bench engine`: the engine's speed without a network.

#ifndef LORIKEET_CLI_BENCH_ENGINE_H_
#define LORIKEET_CLI_BENCH_ENGINE_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds the subcommand to `bench`; its callback sets *exit_code.
void AddBenchEngineCommand(CLI::App& bench, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_BENCH_ENGINE_H_
