#include "cli/train.h"

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/log.h"
#include "base/status.h"
#include "base/text.h"
#include "base/thread_pool.h"
#include "cli/offline_error.h"
#include "cli/train_estimate.h"
#include "cli/train_progress.h"
#include "kernels/device/open_device.h"
#include "model/model.h"
#include "train/training_job.h"

namespace lorikeet {
namespace {

struct Flags {
  std::string model_dir;
  std::string device = "auto";
  std::string device_memory;
  int64_t device_memory_bytes = 0;
  std::string dtype = "auto";
  std::string compute_dtype = "f32";
  int threads = 0;
  std::string method = "lora";
  std::string schedule = "linear";
  std::string loss_on = "completion";
  std::string activation_memory;
  bool dry_run = false;
  TrainingFiles files;
  TrainingOptions options;
};

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(
    FileSystem& fs, const std::string& dir) {
  if (!fs.FileExists(JoinPath(dir, "tokenizer.json"))) return nullptr;
  return Tokenizer::Load(fs, dir);
}

absl::StatusOr<int64_t> BytesOf(absl::string_view flag,
                                const std::string& text) {
  const absl::StatusOr<uint64_t> bytes = ParseBytes(text);
  if (!bytes.ok()) return Annotate(bytes.status(), flag);
  return static_cast<int64_t>(*bytes);
}

absl::Status FillOptions(Flags& flags) {
  TrainingOptions& options = flags.options;
  options.method =
      flags.method == "full" ? TrainingMethod::kFull : TrainingMethod::kLora;
  options.decay = flags.schedule == "cosine" ? Schedule::Decay::kCosine
                                             : Schedule::Decay::kLinear;
  options.learn_all = flags.loss_on == "all";
  options.compute_dtype =
      flags.compute_dtype == "bf16" ? DType::kBF16 : DType::kF32;
  if (options.steps == 0 && options.epochs == 0) options.epochs = 3;
  if (!flags.activation_memory.empty()) {
    ASSIGN_OR_RETURN(flags.files.tape_bytes,
                     BytesOf("--activation-memory", flags.activation_memory));
  }
  if (!flags.device_memory.empty()) {
    ASSIGN_OR_RETURN(flags.device_memory_bytes,
                     BytesOf("--device-memory-bytes", flags.device_memory));
  }
  return options.Check();
}

void ReportStart(const TrainingJob& job, const Ops& ops) {
  const int64_t trained = job.model().parameters().size();
  absl::FPrintF(
      stderr,
      "training %d parameters on %d examples, %d tokens, %d steps (%s/%s)\n",
      trained, job.data().size(), job.data().num_tokens(), job.num_steps(),
      ops.Name(), ops.Target());
  if (job.steps_done() > 0) {
    absl::FPrintF(stderr, "resumed after step %d\n", job.steps_done());
  }
}

void ReportEnd(const TrainingJob& job, const TrainProgress& progress,
               const std::string& output) {
  const TrainingHistory& history = job.history();
  std::string line = absl::StrFormat("wrote %s: loss %.4f", Quote(output),
                                     history.steps.back().loss);
  if (!history.evals.empty()) {
    absl::StrAppendFormat(&line, ", eval loss %.4f, exact match %.1f %%",
                          history.evals.back().loss,
                          100 * history.evals.back().exact_match);
  }
  absl::StrAppendFormat(&line, ", %.0f tokens/s", progress.tokens_per_second());
  std::printf("%s\n", line.c_str());
}

absl::Status Train(Flags& flags) {
  RETURN_IF_ERROR(FillOptions(flags));
  if (flags.dry_run) {
    return PrintTrainingEstimate(flags.model_dir, flags.options,
                                 ParseDType(flags.dtype));
  }
  if (flags.files.data.empty() || flags.files.output.empty()) {
    return absl::InvalidArgumentError(
        "--data and --output are required, unless with --dry-run");
  }
  PosixFileSystem fs;
  const SystemClock clock;
  SetLogLevel(LogLevel::kWarning);  // the first line says where it computes
  ThreadPool threads(flags.threads > 0 ? flags.threads : AvailableCores());
  const DeviceOptions device{
      .device = flags.device,
      .int8_weights = flags.dtype == "int8",
      .compute_dtype = flags.options.compute_dtype,
      .cuda = {.memory_bytes = flags.device_memory_bytes, .graphs = false}};
  ASSIGN_OR_RETURN(const std::unique_ptr<Ops> ops, OpenDevice(device, threads));
  ASSIGN_OR_RETURN(const std::unique_ptr<TrainOps> train_ops,
                   OpenTrainOps(device, *ops, threads));
  ModelOptions model_options;
  model_options.dtype = ParseDType(flags.dtype);
  ASSIGN_OR_RETURN(const std::unique_ptr<Model> base,
                   Model::Load(fs, flags.model_dir, *ops, model_options));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                   LoadTokenizer(fs, flags.model_dir));
  const TrainingSubject subject{fs, *base, tokenizer.get(), *ops, *train_ops};
  ASSIGN_OR_RETURN(const std::unique_ptr<TrainingJob> job,
                   TrainingJob::Create(subject, flags.files, flags.options));
  ReportStart(*job, *ops);
  TrainProgress progress(*job, clock);
  for (bool is_done = false; !is_done;) {
    absl::StatusOr<bool> slice = job->RunSlice();
    if (!slice.ok()) {
      progress.Finish();
      return slice.status();
    }
    is_done = *slice;
    progress.Update();
  }
  progress.Finish();
  ReportEnd(*job, progress, flags.files.output);
  return absl::OkStatus();
}

constexpr char kFooter[] =
    "Examples:\n"
    "  lorikeet train --model demo/base --data train.jsonl --eval test.jsonl "
    "--output /tmp/adapter --steps 200\n"
    "  lorikeet train --model demo/base --data train.jsonl --output "
    "/tmp/adapter --steps 200 --resume\n"
    "  lorikeet train --model demo/base --dry-run --rank 4 --target-modules "
    "q_proj,v_proj\n"
    "\nA line of data is {\"prompt\": TEXT, \"completion\": TEXT} or "
    "{\"token_ids\": [..], \"loss_mask\": [..]}.\nThe output is a PEFT "
    "directory with the loss curve (loss.csv, loss.svg) and training.json; of "
    "--method full\na Hugging Face model in f32. Until it is there, state and "
    "checkpoints lie in OUTPUT.training.";

void AddLoraOptions(CLI::App* command, TrainingOptions& options) {
  command->add_option("--rank,-r", options.rank, "Rank of the adapter")
      ->capture_default_str();
  command->add_option("--alpha", options.alpha, "Scaling is alpha / rank")
      ->capture_default_str();
  command
      ->add_option("--target-modules", options.target_modules,
                   "Names of modules (q_proj,v_proj), or all-linear")
      ->delimiter(',')
      ->capture_default_str();
  command->add_flag("--rslora", options.use_rslora,
                    "Scaling is alpha / sqrt(rank)");
  command->add_flag("--dora", options.use_dora, "Train magnitudes as well");
  command
      ->add_option("--dropout", options.dropout,
                   "Share of the adapter's input that is dropped")
      ->capture_default_str();
}

void AddOptimizerOptions(CLI::App* command, Flags& flags) {
  TrainingOptions& options = flags.options;
  command
      ->add_option("--learning-rate", options.learning_rate,
                   "Of AdamW, at its peak")
      ->capture_default_str();
  command
      ->add_option("--warmup-steps", options.warmup_steps,
                   "Steps in which the rate rises")
      ->capture_default_str();
  command->add_option("--schedule", flags.schedule, "How the rate falls")
      ->check(CLI::IsMember({"linear", "cosine"}))
      ->capture_default_str();
  command
      ->add_option("--weight-decay", options.weight_decay,
                   "Decoupled, of every trained tensor")
      ->capture_default_str();
  command
      ->add_option("--clip-norm", options.clip_norm,
                   "Largest norm of a step's gradient; 0 = any")
      ->capture_default_str();
  command->add_option("--batch-size", options.batch_size, "Examples of a batch")
      ->capture_default_str();
  command
      ->add_option("--gradient-accumulation", options.gradient_accumulation,
                   "Batches of a step")
      ->capture_default_str();
  command
      ->add_option("--token-budget", options.token_budget,
                   "Tokens that are computed at once, packed; also the limit "
                   "of an example")
      ->capture_default_str();
  command->add_option("--steps", options.steps, "Steps of the job");
  command->add_option("--epochs", options.epochs,
                      "Times that all examples are seen; 3 without --steps");
  command->add_option("--seed", options.seed, "Of everything random")
      ->capture_default_str();
  command->add_option("--loss-on", flags.loss_on, "What is learned")
      ->check(CLI::IsMember({"completion", "all"}))
      ->capture_default_str();
}

void AddFileOptions(CLI::App* command, Flags& flags) {
  TrainingFiles& files = flags.files;
  command->add_option("--model,-m", flags.model_dir, "Base model")
      ->type_name("DIR")
      ->required();
  command->add_option("--data", files.data, "Examples to train on, JSONL")
      ->type_name("FILE");
  command->add_option("--eval", files.eval, "Examples to evaluate on, JSONL")
      ->type_name("FILE");
  command->add_option("--output", files.output, "A directory that is not there")
      ->type_name("DIR");
  command->add_flag("--dry-run", flags.dry_run,
                    "Print what training takes; only config.json is read");
  command->add_flag("--resume", files.resume,
                    "Go on from the last checkpoint of this output");
  command
      ->add_option("--eval-steps", files.eval_steps,
                   "Steps between evaluations; 0 = at the end alone")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--checkpoint-steps", files.checkpoint_steps,
                   "Steps between checkpoints; 0 = none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--device", flags.device, "Where to compute")
      ->check(CLI::IsMember(DeviceNames()))
      ->capture_default_str();
  command->add_option(
      "--device-memory-bytes", flags.device_memory,
      "On CUDA: memory for weights, activations and optimizer together, for "
      "example 8GiB; default: nine tenths of what is free");
  command
      ->add_option("--dtype", flags.dtype,
                   "Type that the frozen base is kept in; auto = as in the "
                   "file")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f16", "int8"}))
      ->capture_default_str();
  command
      ->add_option("--compute-dtype", flags.compute_dtype,
                   "bf16 = round inputs of products with a frozen bf16 base, "
                   "for the CPU's bf16 dot products: faster, less exact; "
                   "CUDA does so always")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  command->add_option(
      "--activation-memory", flags.activation_memory,
      "For activations that are kept rather than computed again, "
      "for example 512MiB; by default 5/8 of the base's size");
  command
      ->add_option("--threads", flags.threads, "Compute threads; 0 = all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

}  // namespace

void AddTrainCommand(CLI::App& app, int* exit_code) {
  CLI::App* command = app.add_subcommand(
      "train", "Train an adapter for a base model on this machine");
  command->footer(kFooter);
  const auto flags = std::make_shared<Flags>();
  AddFileOptions(command, *flags);
  command
      ->add_option("--method", flags->method,
                   "lora: low-rank parts; full: all weights")
      ->check(CLI::IsMember({"lora", "full"}))
      ->capture_default_str();
  AddLoraOptions(command, flags->options);
  AddOptimizerOptions(command, *flags);
  command->callback(
      [flags, exit_code] { ReportOfflineError(Train(*flags), exit_code); });
}

}  // namespace lorikeet
