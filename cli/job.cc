#include "cli/job.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file_system.h"
#include "base/status.h"
#include "base/text.h"
#include "cli/adapter_format.h"
#include "cli/channel.h"
#include "cli/progress_bar.h"
#include "cli/rpc_client.h"
#include "cli/table.h"

namespace lorikeet {
namespace {

constexpr uint64_t kMaxDataBytes = uint64_t{8} << 20;

constexpr char kFooter[] =
    "A server started with --train-share 0.2 trains adapters on the base that "
    "it serves,\nin the time that requests leave; jobs survive a restart.\n"
    "\nExamples:\n"
    "  lorikeet job create dates --data train.jsonl --eval test.jsonl --steps "
    "200 --watch\n"
    "  lorikeet job create dates --server-data /srv/data/dates.jsonl --canary "
    "when=5\n"
    "  lorikeet job list\n"
    "\nA line of data is {\"prompt\": TEXT, \"completion\": TEXT} or "
    "{\"token_ids\": [..], \"loss_mask\": [..]}.\n";

struct Flags {
  ServerFlags server;
  OutputFormat output = OutputFormat::kTable;
  std::string job;  // id
  bool watch = false;
  // create
  std::string adapter;
  std::string data, eval;                // files of this machine
  std::string server_data, server_eval;  // files of the server
  std::string canary;                    // ALIAS=PERCENT
  v1::TrainOptions options;
};

std::string NameOfJob(const std::string& id) {
  return absl::StrCat("tenants/default/trainingJobs/", id);
}

std::string IdOf(const v1::TrainingJob& job) {
  return job.name().substr(job.name().rfind('/') + 1);
}

std::string StateOf(const v1::TrainingJob& job) {
  const std::string name(v1::TrainingJob::State_Name(job.state()));
  return absl::AsciiStrToLower(name.substr(std::string("STATE_").size()));
}

bool HasEnded(const v1::TrainingJob& job) {
  return job.state() == v1::TrainingJob::STATE_SUCCEEDED ||
         job.state() == v1::TrainingJob::STATE_FAILED ||
         job.state() == v1::TrainingJob::STATE_CANCELLED;
}

std::string StepsOf(const v1::TrainingJob& job) {
  return job.steps() == 0 ? ""
                          : absl::StrCat(job.steps_done(), "/", job.steps());
}

std::string ExactOf(const v1::TrainingJob& job) {
  return job.has_eval_exact_match()
             ? absl::StrFormat("%.1f %%", 100 * job.eval_exact_match())
             : "";
}

std::string ResultOf(const v1::TrainingJob& job) {
  if (job.version() > 0) return absl::StrCat(job.adapter(), "@", job.version());
  return Printable(job.error().message());
}

std::string ToTable(const v1::ListTrainingJobsResponse& list) {
  Table table({{"JOB"},
               {"ADAPTER"},
               {"STATE"},
               {"STEPS", Table::Align::kRight},
               {"LOSS", Table::Align::kRight},
               {"EXACT", Table::Align::kRight},
               {"RESULT"}});
  for (const v1::TrainingJob& job : list.jobs()) {
    table.AddRow({IdOf(job), job.adapter(), StateOf(job), StepsOf(job),
                  job.steps_done() > 0 ? Fixed(job.loss(), 4) : "",
                  ExactOf(job), ResultOf(job)});
  }
  return table.ToString();
}

void Show(const Flags& flags, const v1::TrainingJob& job) {
  if (flags.output == OutputFormat::kJson) {
    Print(MessageToJson(job));
    return;
  }
  v1::ListTrainingJobsResponse list;
  *list.add_jobs() = job;
  Print(ToTable(list));
}

// A line that moves on a terminal, a line now and then in a pipe; on stderr, so
// that the result stands alone on stdout.
class Progress {
 public:
  void Show(const v1::TrainingJob& job) {
    if (!is_terminal_ && job.steps_done() == shown_ && !HasEnded(job)) return;
    shown_ = job.steps_done();
    const double share = job.steps() == 0
                             ? 0
                             : static_cast<double>(job.steps_done()) /
                                   static_cast<double>(job.steps());
    absl::FPrintF(stderr, "%s[%s] %s  step %s  loss %.4f%s%s",
                  is_terminal_ ? "\r\033[K" : "", ProgressBar(share),
                  StateOf(job), job.steps() == 0 ? "-" : StepsOf(job),
                  job.loss(),
                  job.has_eval_exact_match()
                      ? absl::StrCat("  exact match ", ExactOf(job))
                      : "",
                  is_terminal_ && !HasEnded(job) ? "" : "\n");
    std::fflush(stderr);
  }

 private:
  const bool is_terminal_ = ::isatty(STDERR_FILENO) == 1;
  uint64_t shown_ = ~uint64_t{0};
};

absl::Status WatchToTheEnd(const Flags& flags, const std::string& name,
                           RpcClient& client) {
  v1::WatchTrainingJobRequest request;
  request.set_name(name);
  Progress progress;
  v1::TrainingJob last;
  RETURN_IF_ERROR(
      client.WatchTrainingJob(request, [&](const v1::TrainingJob& job) {
        progress.Show(job);
        last = job;
        return true;
      }));
  Show(flags, last);
  if (last.state() == v1::TrainingJob::STATE_SUCCEEDED) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat(IdOf(last), " ", StateOf(last), ": ",
                                         last.error().message()));
}

absl::Status FillData(const std::string& local, const std::string& remote,
                      v1::TrainingData* data) {
  if (!remote.empty()) data->set_local_path(remote);
  if (local.empty()) return absl::OkStatus();
  PosixFileSystem fs;
  ASSIGN_OR_RETURN(const uint64_t size, fs.FileSize(local));
  if (size > kMaxDataBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        Quote(local), " has ", size, " bytes, at most ", kMaxDataBytes,
        " can be sent; put it below a --training-root of the server and name "
        "it with --server-data"));
  }
  ASSIGN_OR_RETURN(*data->mutable_content(), fs.ReadFile(local, kMaxDataBytes));
  return absl::OkStatus();
}

absl::Status FillCanary(const std::string& text, v1::Canary* canary) {
  const size_t equals = text.rfind('=');
  uint32_t percent = 0;
  if (equals == std::string::npos ||
      !absl::SimpleAtoi(text.substr(equals + 1), &percent)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--canary ", Quote(text), " is no ALIAS=PERCENT"));
  }
  canary->set_alias(text.substr(0, equals));
  canary->set_percent(percent);
  return absl::OkStatus();
}

absl::Status Create(const Flags& flags, RpcClient& client) {
  v1::CreateTrainingJobRequest request;
  request.set_parent("tenants/default");
  v1::TrainingJob& job = *request.mutable_job();
  job.set_adapter(flags.adapter);
  *job.mutable_options() = flags.options;
  RETURN_IF_ERROR(FillData(flags.data, flags.server_data, job.mutable_data()));
  if (!flags.eval.empty() || !flags.server_eval.empty()) {
    RETURN_IF_ERROR(
        FillData(flags.eval, flags.server_eval, job.mutable_eval()));
  }
  if (!flags.canary.empty()) {
    RETURN_IF_ERROR(FillCanary(flags.canary, job.mutable_canary()));
  }
  ASSIGN_OR_RETURN(const v1::TrainingJob created,
                   client.CreateTrainingJob(request));
  if (flags.watch) return WatchToTheEnd(flags, created.name(), client);
  Show(flags, created);
  return absl::OkStatus();
}

absl::Status Get(const Flags& flags, RpcClient& client) {
  v1::GetTrainingJobRequest request;
  request.set_name(NameOfJob(flags.job));
  ASSIGN_OR_RETURN(const v1::TrainingJob job, client.GetTrainingJob(request));
  Show(flags, job);
  return absl::OkStatus();
}

absl::Status List(const Flags& flags, RpcClient& client) {
  v1::ListTrainingJobsRequest request;
  request.set_parent("tenants/default");
  ASSIGN_OR_RETURN(const v1::ListTrainingJobsResponse list,
                   client.ListTrainingJobs(request));
  Print(flags.output == OutputFormat::kJson ? MessageToJson(list)
                                            : ToTable(list));
  return absl::OkStatus();
}

absl::Status Watch(const Flags& flags, RpcClient& client) {
  return WatchToTheEnd(flags, NameOfJob(flags.job), client);
}

absl::Status Cancel(const Flags& flags, RpcClient& client) {
  v1::CancelTrainingJobRequest request;
  request.set_name(NameOfJob(flags.job));
  ASSIGN_OR_RETURN(const v1::TrainingJob job,
                   client.CancelTrainingJob(request));
  Show(flags, job);
  return absl::OkStatus();
}

// A flag of an optional field keeps it absent unless it is given.
template <typename T>
void AddField(CLI::App& command, const std::string& name,
              const std::shared_ptr<Flags>& flags,
              void (v1::TrainOptions::*set)(T), const std::string& text) {
  command.add_option_function<T>(
      name, [flags, set](const T& value) { (flags->options.*set)(value); },
      text);
}

void AddOptions(CLI::App& command, const std::shared_ptr<Flags>& flags) {
  using O = v1::TrainOptions;
  AddField<uint32_t>(command, "--rank,-r", flags, &O::set_rank,
                     "Rank of the adapter (8)");
  AddField<double>(command, "--alpha", flags, &O::set_alpha,
                   "Scaling is alpha / rank (16)");
  command
      .add_option_function<std::vector<std::string>>(
          "--target-modules",
          [flags](const std::vector<std::string>& names) {
            for (const std::string& name : names) {
              flags->options.add_target_modules(name);
            }
          },
          "Names of modules (q_proj,v_proj), or all-linear (default)")
      ->delimiter(',');
  command.add_flag_callback(
      "--rslora", [flags] { flags->options.set_use_rslora(true); },
      "Scaling is alpha / sqrt(rank)");
  command.add_flag_callback(
      "--dora", [flags] { flags->options.set_use_dora(true); },
      "Train magnitudes as well");
  AddField<double>(command, "--dropout", flags, &O::set_dropout,
                   "Share of the adapter's input that is dropped (0)");
  AddField<double>(command, "--learning-rate", flags, &O::set_learning_rate,
                   "Of AdamW, at its peak (0.001)");
  AddField<uint32_t>(command, "--warmup-steps", flags, &O::set_warmup_steps,
                     "Steps in which the rate rises (0)");
  command
      .add_option_function<std::string>(
          "--schedule",
          [flags](const std::string& name) {
            flags->options.set_schedule(name);
          },
          "How the rate falls (linear)")
      ->check(CLI::IsMember({"linear", "cosine"}));
  AddField<double>(command, "--weight-decay", flags, &O::set_weight_decay,
                   "Decoupled (0)");
  AddField<double>(command, "--clip-norm", flags, &O::set_clip_norm,
                   "Largest norm of a step's gradient; 0 = any (1)");
  AddField<uint32_t>(command, "--batch-size", flags, &O::set_batch_size,
                     "Examples of a batch (8)");
  AddField<uint32_t>(command, "--gradient-accumulation", flags,
                     &O::set_gradient_accumulation, "Batches of a step (1)");
  AddField<uint32_t>(command, "--token-budget", flags, &O::set_token_budget,
                     "Tokens that are computed at once; by default as the "
                     "longest example needs: short slices");
  AddField<uint32_t>(command, "--steps", flags, &O::set_steps,
                     "Steps of the job");
  AddField<uint32_t>(command, "--epochs", flags, &O::set_epochs,
                     "Times that all examples are seen; 3 without --steps");
  AddField<uint64_t>(command, "--seed", flags, &O::set_seed,
                     "Of everything random (0)");
  command.add_flag_callback(
      "--learn-all", [flags] { flags->options.set_learn_all(true); },
      "Learn prompts too");
}

using Action = std::function<absl::Status(const Flags&, RpcClient&)>;

CLI::App* AddAction(CLI::App& parent, int* exit_code, const std::string& name,
                    const std::string& description,
                    const std::shared_ptr<Flags>& flags, Action action) {
  CLI::App* const command = parent.add_subcommand(name, description);
  AddServerFlags(*command, &flags->server);
  AddOutputFlag(*command, &flags->output);
  command->callback([flags, exit_code, action = std::move(action)] {
    RpcClient client(flags->server);
    *exit_code = ReportError(action(*flags, client));
  });
  return command;
}

void AddCreate(CLI::App& parent, int* exit_code) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* const command =
      AddAction(parent, exit_code, "create",
                "Train a new version of an adapter", flags, Create);
  command
      ->add_option("adapter", flags->adapter,
                   "Name of the adapter, which is created if it is not there")
      ->type_name("NAME")
      ->required();
  CLI::Option* const data = command->add_option(
      "--data", flags->data, "Examples, JSONL, of this machine: they are sent");
  CLI::Option* const server_data = command->add_option(
      "--server-data", flags->server_data,
      "Examples of the server's machine, below a --training-root of it");
  data->type_name("FILE")->excludes(server_data);
  server_data->type_name("FILE");
  CLI::Option* const eval =
      command->add_option("--eval", flags->eval, "Examples to evaluate on");
  CLI::Option* const server_eval = command->add_option(
      "--server-eval", flags->server_eval, "The same, of the server's machine");
  eval->type_name("FILE")->excludes(server_eval);
  server_eval->type_name("FILE");
  command
      ->add_option("--canary", flags->canary,
                   "Give that share of an alias's requests to the new version")
      ->type_name("ALIAS=PERCENT");
  command->add_flag("--watch,-w", flags->watch,
                    "Show progress and wait for the end; fails with the job");
  AddOptions(*command, flags);
}

void AddNamed(CLI::App& parent, int* exit_code, const std::string& name,
              const std::string& description, Action action) {
  const auto flags = std::make_shared<Flags>();
  AddAction(parent, exit_code, name, description, flags, std::move(action))
      ->add_option("job", flags->job, "Job, as `job list` shows it")
      ->type_name("JOB")
      ->required();
}

}  // namespace

void AddJobCommands(CLI::App& app, int* exit_code) {
  CLI::App* const job = app.add_subcommand(
      "job", "Train adapters on a server: create, list, watch, cancel");
  job->require_subcommand(1);
  job->footer(kFooter);
  AddCreate(*job, exit_code);
  AddNamed(*job, exit_code, "get", "Show a job", Get);
  AddAction(*job, exit_code, "list", "Show all jobs", std::make_shared<Flags>(),
            List);
  AddNamed(*job, exit_code, "watch",
           "Show a job's progress until its end; fails with the job", Watch);
  AddNamed(*job, exit_code, "cancel", "End a job", Cancel);
}

}  // namespace lorikeet
