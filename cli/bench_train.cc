// A round measures the machine's peak, a step, and the peak again; a figure is
// the median over rounds of a step's share of the mean of its two peaks, so
// that neighbours on the machine slow both sides of the ratio.

#include "cli/bench_train.h"

#include <sys/resource.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/random.h"
#include "base/status.h"
#include "base/text.h"
#include "cli/engine_probe.h"
#include "cli/offline_error.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/machine_peaks.h"
#include "kernels/cpu/train/train_ops.h"
#include "train/trainer.h"

namespace lorikeet {
namespace {

struct Flags {
  std::string model_dir;
  std::string dtype = "auto";
  std::string compute_dtype = "f32";
  std::string method = "lora";
  std::string activation_memory;
  int64_t rank = 8;
  int64_t sequences = 4;
  int64_t length = 128;
  int64_t targets = 32;
  int rounds = 7;
  int threads = 0;
};

std::vector<TrainSequence> MakeSequences(const Flags& flags,
                                         int64_t vocab_size) {
  Rng rng(1);
  std::vector<TrainSequence> sequences;
  for (int64_t i = 0; i < flags.sequences; ++i) {
    TrainSequence s;
    for (int64_t t = 0; t < flags.length; ++t) {
      s.tokens.push_back(
          static_cast<Token>(rng.Below(static_cast<uint64_t>(vocab_size))));
      s.is_target.push_back(t >= flags.length - flags.targets);
    }
    sequences.push_back(std::move(s));
  }
  return sequences;
}

// What a step has to compute: forward, and gradients of inputs (LoRA) and of
// weights (full) too; lm_head for targets alone. Nothing that is computed again
// counts, nor do low-rank parts, attention and norms.
double NeededFlops(const Model& model, const Flags& flags) {
  const double per_product = flags.method == "full" ? 6 : 4;
  const double tokens = static_cast<double>(flags.sequences * flags.length);
  const double targets = static_cast<double>(flags.sequences * flags.targets);
  const double lm_head = static_cast<double>(model.lm_head().in_dim()) *
                         static_cast<double>(model.lm_head().out_dim());
  return per_product *
         (LinearFlopsPerToken(model) / 2 * tokens + lm_head * targets);
}

// Of all threads of this process.
double ProcessorSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) +
           1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

int64_t PeakResidentBytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

absl::StatusOr<std::unique_ptr<TrainModel>> MakeModel(const Flags& flags,
                                                      const Model& base,
                                                      Ops& ops, TrainOps& train,
                                                      Stream& stream) {
  if (flags.method == "full") return TrainModel::Full(base, ops, stream);
  PeftConfig peft;
  peft.r = flags.rank;
  peft.lora_alpha = 2 * static_cast<double>(flags.rank);
  peft.target_modules = ModuleChoice{"all-linear", {}};
  return TrainModel::Lora(base, peft, 0, ops, train, stream);
}

struct Round {
  double seconds = 0;
  double processor_seconds = 0;
  double peak = 0;  // FLOP per second
};

absl::Status RunStep(Trainer& trainer, const TrainBatch& batch) {
  trainer.BeginStep({batch});
  for (bool done = false; !done;) {
    ASSIGN_OR_RETURN(done, trainer.RunSlice());
  }
  return absl::OkStatus();
}

absl::Status Measure(Trainer& trainer, const TrainBatch& batch,
                     MachineProbe& probe, const Clock& clock, Round* round) {
  const double before = probe.F32FlopsPerSecond();
  const double processor_start = ProcessorSeconds();
  const absl::Duration start = clock.Now();
  RETURN_IF_ERROR(RunStep(trainer, batch));
  round->processor_seconds = ProcessorSeconds() - processor_start;
  round->seconds = absl::ToDoubleSeconds(clock.Now() - start);
  round->peak = (before + probe.F32FlopsPerSecond()) / 2;
  return absl::OkStatus();
}

void Report(const Flags& flags, const Model& model, int64_t weight_bytes,
            int64_t peak_bytes, const std::vector<Round>& rounds) {
  const double flops = NeededFlops(model, flags);
  const double tokens = static_cast<double>(flags.sequences * flags.length);
  std::vector<double> share, speed, processor, peak;
  for (const Round& r : rounds) {
    share.push_back(flops / (r.seconds * r.peak));
    speed.push_back(tokens / r.seconds);
    processor.push_back(tokens / r.processor_seconds);
    peak.push_back(r.peak);
  }
  std::printf("%d sequences of %d tokens, %d targets each, %d rounds\n",
              static_cast<int>(flags.sequences), static_cast<int>(flags.length),
              static_cast<int>(flags.targets), flags.rounds);
  std::printf("needed FLOPs / (time x FMA peak)   %.3f   (spread %.2f)\n",
              Median(share), Spread(share));
  std::printf("tokens/s                           %.0f   (spread %.2f)\n",
              Median(speed), Spread(speed));
  std::printf("tokens / processor second          %.0f   (spread %.2f)\n",
              Median(processor), Spread(processor));
  std::printf("FMA peak, GFLOP/s                  %.1f\n", Median(peak) * 1e-9);
  std::printf(
      "peak memory / weights              %.2f   (%s / %s)\n",
      static_cast<double>(peak_bytes) / static_cast<double>(weight_bytes),
      HumanBytes(static_cast<uint64_t>(peak_bytes)).c_str(),
      HumanBytes(static_cast<uint64_t>(weight_bytes)).c_str());
}

absl::Status Bench(const Flags& flags) {
  PosixFileSystem fs;
  const SystemClock clock;
  ThreadPool threads(flags.threads > 0 ? flags.threads : AvailableCores());
  const std::unique_ptr<Ops> ops = NewCpuOps(threads);
  CpuOptions cpu_options;
  if (flags.compute_dtype == "bf16") cpu_options.compute_dtype = DType::kBF16;
  ASSIGN_OR_RETURN(const std::unique_ptr<TrainOps> train,
                   CreateCpuTrainOps(threads, cpu_options));
  ModelOptions model_options;
  model_options.dtype = ParseDType(flags.dtype);
  ASSIGN_OR_RETURN(const std::unique_ptr<Model> base,
                   Model::Load(fs, flags.model_dir, *ops, model_options));
  HostStream stream;
  ASSIGN_OR_RETURN(const std::unique_ptr<TrainModel> model,
                   MakeModel(flags, *base, *ops, *train, stream));
  TrainerOptions options;
  options.schedule.steps = flags.rounds + 1;
  options.passes.max_tokens = flags.sequences * flags.length;
  options.passes.tape_bytes = DefaultTapeBytes(*base);
  if (!flags.activation_memory.empty()) {
    ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(flags.activation_memory));
    options.passes.tape_bytes = static_cast<int64_t>(bytes);
  }
  Trainer trainer(*model, *train, *ops, stream, options);
  RETURN_IF_ERROR(trainer.status());
  const std::vector<TrainSequence> sequences =
      MakeSequences(flags, base->config().vocab_size);
  TrainBatch batch;
  for (const TrainSequence& s : sequences) batch.push_back(&s);
  // The first step warms up, and has taken all memory before the probe does.
  RETURN_IF_ERROR(RunStep(trainer, batch));
  const int64_t peak_bytes = PeakResidentBytes();
  MachineProbe probe(threads, clock);
  std::vector<Round> rounds(static_cast<size_t>(flags.rounds));
  for (Round& round : rounds) {
    RETURN_IF_ERROR(Measure(trainer, batch, probe, clock, &round));
  }
  Report(flags, *base, base->weight_bytes(), peak_bytes, rounds);
  return absl::OkStatus();
}

}  // namespace

void AddBenchTrainCommand(CLI::App& bench, int* exit_code) {
  CLI::App* command = bench.add_subcommand(
      "train", "What a training step costs, beside the machine's peak");
  const auto flags = std::make_shared<Flags>();
  command->add_option("--model,-m", flags->model_dir, "Base model")
      ->type_name("DIR")
      ->required();
  command->add_option("--dtype", flags->dtype, "Type of the frozen base")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "int8"}))
      ->capture_default_str();
  command->add_option("--compute-dtype", flags->compute_dtype, "As of `train`")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
  command->add_option("--method", flags->method, "What is trained")
      ->check(CLI::IsMember({"lora", "full"}))
      ->capture_default_str();
  const auto count = [&](const char* name, int64_t* to, const char* what) {
    command->add_option(name, *to, what)
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
  };
  count("--rank", &flags->rank, "Of an adapter on all linears");
  count("--sequences", &flags->sequences, "Sequences of a step");
  count("--length", &flags->length, "Tokens of each");
  count("--targets", &flags->targets, "Tokens of each that are learned");
  command->add_option("--rounds", flags->rounds, "Steps that are measured")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--activation-memory", flags->activation_memory,
                      "As of `train`");
  command->add_option("--threads", flags->threads, "0 = all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->callback([flags, exit_code] {
    ReportOfflineError(
        flags->targets < flags->length
            ? Bench(*flags)
            : absl::InvalidArgumentError(absl::StrCat(
                  "--targets is ", flags->targets,
                  ", expected fewer than --length ", flags->length)),
        exit_code);
  });
}

}  // namespace lorikeet
