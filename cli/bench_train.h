// `lorikeet bench train`: what a training step costs.

#ifndef LORIKEET_CLI_BENCH_TRAIN_H_
#define LORIKEET_CLI_BENCH_TRAIN_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds the subcommand to `bench`; its callback sets *exit_code.
void AddBenchTrainCommand(CLI::App& bench, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_BENCH_TRAIN_H_
