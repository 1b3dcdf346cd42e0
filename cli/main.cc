// The `lorikeet` command: one subcommand per file, wired here.

#include <CLI/CLI.hpp>

#include <cstdio>

#include "cli/adapter.h"
#include "cli/adapter_merge.h"
#include "cli/adapter_verify.h"
#include "cli/bench_engine.h"
#include "cli/bench_limits.h"
#include "cli/bench_serve.h"
#include "cli/bench_train.h"
#include "cli/demo.h"
#include "cli/generate.h"
#include "cli/job.h"
#include "cli/merged.h"
#include "cli/models.h"
#include "cli/run.h"
#include "cli/serve.h"
#include "cli/tokenize.h"
#include "cli/train.h"

namespace {

constexpr char kDescription[] =
    "lorikeet serves one frozen base model to many tasks at once: each task is "
    "a LoRA adapter\nthat is registered, swapped and retired while the server "
    "runs.";

constexpr char kFooter[] =
    "Examples:\n"
    "  lorikeet serve --model demo/base --grpc-port 8001\n"
    "  lorikeet adapter register reverse demo/adapters/reverse\n"
    "  lorikeet generate --task reverse --prompt $'Word: "
    "apple\\nAnswer:'\n"
    "  lorikeet run --model demo/base --adapter up=demo/adapters/upper < "
    "requests.jsonl\n"
    "\n`lorikeet COMMAND --help` tells more.";

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(kDescription, "lorikeet");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.set_version_flag("--version", LORIKEET_VERSION);
  int exit_code = 0;
  lorikeet::AddServeCommand(app, &exit_code);
  lorikeet::AddRunCommand(app, &exit_code);
  lorikeet::AddGenerateCommand(app, &exit_code);
  lorikeet::AddModelsCommand(app, &exit_code);
  lorikeet::AddMergedCommand(app, &exit_code);
  lorikeet::AddJobCommands(app, &exit_code);
  CLI::App* adapter = lorikeet::AddAdapterCommands(app, &exit_code);
  lorikeet::AddAdapterVerifyCommand(*adapter, &exit_code);
  lorikeet::AddAdapterMergeCommand(*adapter, &exit_code);
  lorikeet::AddTokenizeCommand(app, &exit_code);
  lorikeet::AddTrainCommand(app, &exit_code);
  CLI::App* bench = app.add_subcommand("bench", "Measure what it costs");
  bench->require_subcommand(1);
  lorikeet::AddBenchServeCommand(*bench, &exit_code);
  lorikeet::AddBenchEngineCommand(*bench, &exit_code);
  lorikeet::AddBenchLimitsCommand(*bench, &exit_code);
  lorikeet::AddBenchTrainCommand(*bench, &exit_code);
  lorikeet::AddDemoCommand(app, &exit_code);
  CLI11_PARSE(app, argc, argv);
  return exit_code;
}
