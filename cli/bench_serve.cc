#include "cli/bench_serve.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"
#include "cli/channel.h"
#include "cli/choice.h"
#include "cli/demo_manifest.h"
#include "cli/rpc_client.h"
#include "cli/table.h"
#include "loadgen/load_client.h"
#include "loadgen/report.h"
#include "loadgen/workload.h"

namespace lorikeet {
namespace {

constexpr char kFooter[] =
    "Open loop (--request-rate): requests start at random times, whatever the "
    "server does,\nand latency counts from when a request was due. Closed loop "
    "(otherwise): --concurrency\nrequests are always in flight.\n"
    "Prompts are random tokens of the model's vocabulary, answers have exactly "
    "the length asked\nfor; with --demo-dir they are the demo's prompts.\n"
    "TTFT: due until the first token. ITL: between messages with tokens. TPOT: "
    "time per token\nafter the first. E2E: due until the end.\n"
    "\nExamples:\n"
    "  lorikeet bench serve --adapters reverse,upper --concurrency 8\n"
    "  lorikeet bench serve --tasks-from-server --popularity zipf --zipf-s 1.1 "
    "\\\n      --request-rate 20 --duration 60 --prompt-tokens 64-256\n"
    "  lorikeet bench serve --demo-dir demo --num-requests 500 --json\n";

// Bounds what a load keeps in memory.
constexpr uint64_t kMaxRequests = 10'000'000;
constexpr uint64_t kDefaultRequests = 200;
constexpr uint32_t kDefaultConcurrency = 8;
constexpr uint32_t kDefaultMaxInFlight = 1024;

// Text whose tokens random prompts are made of: common pieces of English, in
// any vocabulary.
constexpr char kAlphabetText[] =
    "the of and to in is that for it as was with be by on not he his but at "
    "are this have from or had an they which one you were her all their there "
    "would been more when who will no if out so said what up its about into "
    "than them can only other new some could time these two may then do first "
    "any my now such like our over man me even most made after also did many "
    "before must through back years where much your way well down should "
    "because each just those people how too little state good very make world "
    "still own see men work long here get both between life being under";

struct Flags {
  ServerFlags server;
  std::vector<std::string> adapters;
  bool tasks_from_server = false;
  bool include_base = false;
  std::string demo_dir;
  Popularity popularity = Popularity::kUniform;
  double zipf_s = 1;
  std::optional<double> request_rate;
  std::optional<uint32_t> concurrency;
  std::optional<uint64_t> num_requests;
  double duration_s = 0;
  std::string prompt_tokens = "128";
  std::string output_tokens = "64";
  double temperature = 0;
  uint32_t warmup = 0;
  int connections = 1;
  double request_timeout_s = 300;
  uint64_t seed = 0;
  bool json = false;
  OutputFormat output = OutputFormat::kTable;

  bool wants_json() const { return json || output == OutputFormat::kJson; }
};

void AddTaskFlags(CLI::App& command, Flags* flags) {
  const std::string group = "What is asked";
  CLI::Option* adapters = command.add_option(
      "--adapters", flags->adapters,
      "Tasks, separated by commas; the base model's id is one too");
  adapters->type_name("NAME,...")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->group(group);
  command
      .add_flag("--tasks-from-server", flags->tasks_from_server,
                "All adapters that the server has, or the base if it has none "
                "(default)")
      ->excludes(adapters)
      ->group(group);
  command
      .add_flag("--include-base", flags->include_base,
                "The base model as one more task, the last")
      ->group(group);
  AddChoice<Popularity>(command, "--popularity", &flags->popularity,
                        {{"identical", Popularity::kIdentical},
                         {"uniform", Popularity::kUniform},
                         {"zipf", Popularity::kZipf},
                         {"distinct", Popularity::kDistinct}},
                        "identical (always the first task), uniform, zipf (the "
                        "first is the hottest) or distinct (in turn)")
      ->type_name("KIND")
      ->default_str("uniform")
      ->group(group);
  command
      .add_option("--zipf-s", flags->zipf_s,
                  "Exponent of zipf: the k-th task has weight 1 / k^s")
      ->type_name("S")
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--prompt-tokens", flags->prompt_tokens,
                  "Length of prompts: fixed, or uniform over a range")
      ->type_name("N|MIN-MAX")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--output-tokens", flags->output_tokens,
                  "Length of answers: fixed, or uniform over a range")
      ->type_name("N|MIN-MAX")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--demo-dir", flags->demo_dir,
                  "Take prompts from this demo directory; answers end by "
                  "themselves")
      ->type_name("DIR")
      ->group(group);
  command
      .add_option("--temperature", flags->temperature,
                  "Of the sampler; 0 = greedy")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--seed", flags->seed,
                  "The same seed sends the same requests")
      ->capture_default_str()
      ->group(group);
}

void AddLoadFlags(CLI::App& command, Flags* flags) {
  const std::string group = "How much";
  command
      .add_option("--request-rate", flags->request_rate,
                  "Open loop with this many requests per second on average")
      ->type_name("R")
      ->check(CLI::PositiveNumber)
      ->group(group);
  command
      .add_option("--concurrency", flags->concurrency,
                  absl::StrCat("Requests in flight: of a closed loop (default ",
                               kDefaultConcurrency,
                               "), at most of an open loop (default ",
                               kDefaultMaxInFlight, ")"))
      ->type_name("N")
      ->check(CLI::Range(1, 65536))
      ->group(group);
  command
      .add_option("--num-requests", flags->num_requests,
                  absl::StrCat("Requests to send (default ", kDefaultRequests,
                               ", without limit if there is a --duration)"))
      ->type_name("N")
      ->check(CLI::Range(uint64_t{1}, kMaxRequests))
      ->group(group);
  command
      .add_option("--duration", flags->duration_s,
                  "Send nothing more after this many seconds; 0 = no limit")
      ->type_name("S")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--warmup", flags->warmup,
                  "Requests to send before, one after the other, that do not "
                  "count")
      ->type_name("N")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--connections", flags->connections,
                  "Connections to spread the requests over")
      ->type_name("N")
      ->check(CLI::Range(1, 256))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--request-timeout", flags->request_timeout_s,
                  "Deadline of one request in seconds; 0 = none")
      ->type_name("S")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
}

// Names of the tasks, the hottest first.
absl::StatusOr<std::vector<std::string>> TaskNames(const Flags& flags,
                                                   RpcClient& client) {
  ASSIGN_OR_RETURN(const v1::ListModelsResponse models, client.ListModels());
  std::vector<std::string> names = flags.adapters;
  std::string base;
  for (const v1::Model& model : models.models()) {
    if (model.parent().empty()) {
      base = model.id();
    } else if (flags.adapters.empty()) {
      names.push_back(model.id());
    }
  }
  if (names.empty() || flags.include_base) names.push_back(base);
  return names;
}

absl::StatusOr<std::vector<LoadTask>> MakeTasks(const Flags& flags,
                                                RpcClient& client) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names,
                   TaskNames(flags, client));
  std::optional<DemoManifest> manifest;
  if (!flags.demo_dir.empty()) {
    ASSIGN_OR_RETURN(manifest, ReadDemoManifest(flags.demo_dir));
  }
  std::vector<LoadTask> tasks;
  for (const std::string& name : names) {
    LoadTask task{name, {}};
    if (manifest) {
      const DemoAdapter* adapter =
          manifest->FindAdapter(name.substr(0, name.find('@')));
      for (const DemoPrompt& prompt :
           adapter != nullptr ? adapter->prompts : manifest->base_prompts) {
        task.prompts.push_back({prompt.prompt, prompt.max_tokens});
      }
    }
    tasks.push_back(std::move(task));
  }
  return tasks;
}

// No special token is among them: the text is taken as text.
absl::StatusOr<std::vector<uint32_t>> Alphabet(const std::string& task,
                                               RpcClient& client) {
  v1::TokenizeRequest request;
  request.set_task(task);
  request.set_text(kAlphabetText);
  request.set_omit_special_tokens(true);
  ASSIGN_OR_RETURN(const v1::TokenizeResponse response,
                   client.Tokenize(request));
  const std::set<uint32_t> ids(response.token_ids().begin(),
                               response.token_ids().end());
  if (ids.empty()) {
    return absl::FailedPreconditionError(
        "the server's tokenizer makes no tokens of English text");
  }
  return std::vector<uint32_t>(ids.begin(), ids.end());
}

absl::StatusOr<WorkloadOptions> MakeWorkload(const Flags& flags,
                                             RpcClient& client) {
  WorkloadOptions options;
  ASSIGN_OR_RETURN(options.prompt_tokens, Lengths::Parse(flags.prompt_tokens));
  ASSIGN_OR_RETURN(options.output_tokens, Lengths::Parse(flags.output_tokens));
  ASSIGN_OR_RETURN(options.tasks, MakeTasks(flags, client));
  ASSIGN_OR_RETURN(options.alphabet, Alphabet(options.tasks[0].name, client));
  options.popularity = flags.popularity;
  options.zipf_s = flags.zipf_s;
  options.requests_per_second = flags.request_rate;
  options.seed = flags.seed;
  const bool timed = flags.duration_s > 0;
  if (timed) options.duration = absl::Seconds(flags.duration_s);
  options.num_requests =
      flags.num_requests.value_or(timed ? kMaxRequests : kDefaultRequests);
  return options;
}

Table::Column Right(std::string title) {
  return {std::move(title), Table::Align::kRight};
}

std::string Milliseconds(double seconds) { return Fixed(seconds * 1e3, 2); }

void AddSummaryRow(const std::string& title, const Summary& summary,
                   Table* table) {
  table->AddRow({title, Milliseconds(summary.mean), Milliseconds(summary.p50),
                 Milliseconds(summary.p90), Milliseconds(summary.p99),
                 Milliseconds(summary.max)});
}

std::string LoadText(const Flags& flags, const WorkloadOptions& workload) {
  std::string text =
      flags.request_rate
          ? absl::StrCat("open loop, ", *flags.request_rate,
                         " requests/s (Poisson)")
          : absl::StrCat("closed loop, ",
                         flags.concurrency.value_or(kDefaultConcurrency),
                         " in flight");
  absl::StrAppend(&text, ", ", workload.tasks.size(), " tasks, seed ",
                  flags.seed);
  if (flags.demo_dir.empty()) {
    absl::StrAppend(&text, ", prompts of ", workload.prompt_tokens.ToString(),
                    " and answers of ", workload.output_tokens.ToString(),
                    " tokens");
  } else {
    absl::StrAppend(&text, ", prompts of the demo");
  }
  return text;
}

std::string ReportToText(const LoadReport& report,
                         const std::vector<std::string>& names) {
  const LoadFigures& all = report.all;
  std::string out;
  const auto line = [&](absl::string_view key, const std::string& value) {
    absl::StrAppend(&out, key, std::string(20 - key.size(), ' '), value, "\n");
  };
  line("duration", HumanDuration(report.duration));
  line("requests",
       absl::StrCat(all.completed, " completed, ", all.failed,
                    " failed, at most ", report.peak_in_flight, " in flight"));
  line("tokens",
       absl::StrCat(all.prompt_tokens, " in prompts (", all.cached_tokens,
                    " cached), ", all.output_tokens, " in answers"));
  line("requests/s", Fixed(report.PerSecond(all.completed), 2));
  line("output tokens/s", Fixed(report.PerSecond(all.output_tokens), 1));
  line("total tokens/s",
       Fixed(report.PerSecond(all.prompt_tokens + all.output_tokens), 1));
  for (const auto& [key, count] : report.errors) {
    line("error", absl::StrCat(count, " x ", key, ": ",
                               Printable(report.error_examples.at(key), 300)));
  }
  Table latencies({{"LATENCY (ms)"},
                   Right("MEAN"),
                   Right("P50"),
                   Right("P90"),
                   Right("P99"),
                   Right("MAX")});
  AddSummaryRow("TTFT", all.ttft_s, &latencies);
  AddSummaryRow("ITL", all.itl_s, &latencies);
  AddSummaryRow("TPOT", all.tpot_s, &latencies);
  AddSummaryRow("E2E", all.e2e_s, &latencies);
  AddSummaryRow("due until sent", report.send_delay_s, &latencies);
  Table tasks({{"TASK"},
               Right("REQUESTS"),
               Right("FAILED"),
               Right("TOKENS/S"),
               Right("TTFT P50"),
               Right("TTFT P99"),
               Right("TPOT P50"),
               Right("E2E P50"),
               Right("E2E P99")});
  for (size_t i = 0; i < names.size(); ++i) {
    const LoadFigures& figures = report.per_task[i];
    tasks.AddRow(
        {names[i], absl::StrCat(figures.completed),
         absl::StrCat(figures.failed),
         Fixed(report.PerSecond(figures.output_tokens), 1),
         Milliseconds(figures.ttft_s.p50), Milliseconds(figures.ttft_s.p99),
         Milliseconds(figures.tpot_s.p50), Milliseconds(figures.e2e_s.p50),
         Milliseconds(figures.e2e_s.p99)});
  }
  absl::StrAppend(&out, "\n", latencies.ToString(), "\n", tasks.ToString());
  return out;
}

void RunWarmup(const Flags& flags, const LoadClientOptions& client,
               const WorkloadOptions& workload) {
  if (flags.warmup == 0) return;
  WorkloadOptions options = workload;
  options.requests_per_second.reset();
  options.num_requests = flags.warmup;
  options.duration = absl::InfiniteDuration();
  options.seed = ~flags.seed;  // other prompts, so that none is cached
  LoadClientOptions one_by_one = client;
  one_by_one.max_in_flight = 1;
  Workload warmup(std::move(options));
  LoadClient(one_by_one).Run(warmup);
}

absl::Status RunBenchServe(const Flags& flags) {
  RpcClient rpc(flags.server);
  ASSIGN_OR_RETURN(WorkloadOptions options, MakeWorkload(flags, rpc));
  std::vector<std::string> names;
  for (const LoadTask& task : options.tasks) names.push_back(task.name);
  LoadClientOptions client;
  client.server = flags.server.server;
  client.connections = flags.connections;
  client.max_in_flight = flags.concurrency.value_or(
      flags.request_rate ? kDefaultMaxInFlight : kDefaultConcurrency);
  if (flags.request_timeout_s > 0) {
    client.request_timeout = absl::Seconds(flags.request_timeout_s);
  }
  client.temperature = static_cast<float>(flags.temperature);
  const std::string load_text = LoadText(flags, options);
  RunWarmup(flags, client, options);
  if (!flags.wants_json()) Print(absl::StrCat("load: ", load_text, "\n\n"));

  Workload workload(std::move(options));
  const std::vector<LoadResult> results = LoadClient(client).Run(workload);
  const LoadReport report = MakeReport(results, names.size());
  if (flags.wants_json()) {
    Json json = ReportToJson(report, names);
    json.Set("load", load_text);
    Print(absl::StrCat(json.Dump(2), "\n"));
  } else {
    Print(ReportToText(report, names));
  }
  if (report.all.completed == 0) {
    return absl::UnavailableError("no request was answered");
  }
  return absl::OkStatus();
}

}  // namespace

void AddBenchServeCommand(CLI::App& bench, int* exit_code) {
  CLI::App* command = bench.add_subcommand(
      "serve", "Put load on a running server and measure it");
  command->footer(kFooter);
  const auto flags = std::make_shared<Flags>();
  AddTaskFlags(*command, flags.get());
  AddLoadFlags(*command, flags.get());
  AddServerFlags(*command, &flags->server);
  AddOutputFlag(*command, &flags->output);
  command->add_flag("--json", flags->json, "The same as --output json");
  command->callback(
      [flags, exit_code] { *exit_code = ReportError(RunBenchServe(*flags)); });
}

}  // namespace lorikeet
