// `lorikeet bench limits`: how near the CPU backend comes to what the machine
// allows, one line a figure, each beside its goal.

#ifndef LORIKEET_CLI_BENCH_LIMITS_H_
#define LORIKEET_CLI_BENCH_LIMITS_H_

namespace CLI {
class App;
}

namespace lorikeet {

// Adds the subcommand to `bench`; sets *exit_code when it ran: 1 = failed,
// 3 = the machine was too noisy for at least one figure.
void AddBenchLimitsCommand(CLI::App& bench, int* exit_code);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_BENCH_LIMITS_H_
