// Each figure is a ratio whose two sides were measured in turns within one
// round, and is the median over the rounds. A figure whose rounds lie too far
// apart is shown and called noisy.

#include "cli/bench_limits.h"

#include <unistd.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/json.h"
#include "base/status.h"
#include "base/text.h"
#include "cli/engine_probe.h"
#include "cli/linear_probe.h"
#include "cli/resident_memory.h"
#include "kernels/cpu/machine_peaks.h"
#include "server/options.h"
#include "server/runtime.h"

namespace lorikeet {
namespace {

constexpr double kMaxSpread = 0.15;
constexpr int kNoisyExitCode = 3;
// Tokens in the cache before a decode step: few, the figures are about weights.
constexpr int kContext = 16;
constexpr int kPrefillRows = 512;
constexpr int kPerplexityTokens = 2048;
constexpr int kLargeRanks[] = {4, 8, 16, 32, 64};

// The shapes of TinyLlama-1.1B, weights made up.
constexpr const char* kTinyLlamaConfig = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
  "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000,
  "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
  "tie_word_embeddings": false, "torch_dtype": "bfloat16"})";

struct LimitsOptions {
  ServerOptions server;
  std::string text;  // for perplexity; "" = left out
  std::string only;  // part of a figure's name
  int rounds = 9;
  bool large = true;  // the 1.1B shapes
  bool json = false;
};

struct Figure {
  std::string name;
  double goal = 0;
  bool at_most = false;  // else at least
  std::vector<double> rounds;
  std::string note;  // absolute figures; why it was left out

  double Value() const { return Median(rounds); }
  bool Noisy() const {
    return rounds.size() > 1 && Spread(rounds) > kMaxSpread;
  }
  bool Met() const { return at_most ? Value() <= goal : Value() >= goal; }
};

// A model with what it takes to run steps of it.
struct Subject {
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<KvPool> pool;
  std::unique_ptr<StepRunner> runner;

  const Model& model() const { return *runtime->model; }
  Ops& ops() const { return *runtime->ops; }
};

absl::StatusOr<Subject> MakeSubject(const ServerOptions& options,
                                    int64_t sequences, int64_t tokens) {
  Subject s;
  ASSIGN_OR_RETURN(s.runtime, Runtime::CreateModelOnly(options));
  ASSIGN_OR_RETURN(KvPool pool, KvPool::Create(s.model().config(), DType::kF32,
                                               BlocksFor(sequences, tokens)));
  s.pool = std::make_unique<KvPool>(std::move(pool));
  s.runner = std::make_unique<StepRunner>(s.model(), s.ops(), *s.pool);
  return s;
}

using Slots = std::vector<const LoraSlot*>;

class LimitsBench {
 public:
  explicit LimitsBench(const LimitsOptions& options) : options_(options) {}

  absl::Status Run();
  const std::vector<Figure>& figures() const { return figures_; }
  std::string MachineLine() const;

 private:
  absl::Status MeasureBase();
  absl::Status MeasureInt8();
  absl::Status MeasureBf16Compute();
  absl::Status MeasureLarge();
  absl::Status MeasureMemory();
  void MeasureAdapters();

  // Adds a figure whose rounds `round` gives, after one that warms up; nothing
  // if --only leaves it out.
  void Add(const std::string& name, double goal,
           const std::function<double()>& round,
           const std::function<std::string()>& note = nullptr);
  void LeaveOut(const std::string& name, double goal, const std::string& why);
  bool Wanted(const std::string& name) const {
    return absl::StrContains(name, options_.only);
  }

  double Seconds(const std::function<void()>& work);
  // Seconds of one decode step of `batch` rows.
  double Decode(const Subject& s, int batch, const Slots& slots, int steps);
  double Prefill(const Subject& s);
  double ReadPeak() { return Note(&read_, probe_->ReadBytesPerSecond()); }
  double FmaPeak() { return Note(&fma_, probe_->F32FlopsPerSecond()); }
  double DotPeak() { return Note(&dot_, probe_->Bf16FlopsPerSecond()); }
  static double Note(std::vector<double>* values, double value) {
    values->push_back(value);
    return value;
  }

  const LimitsOptions& options_;
  SystemClock clock_;
  Subject base_;
  std::unique_ptr<MachineProbe> probe_;
  std::vector<double> read_, fma_, dot_;  // every measured peak
  std::vector<Figure> figures_;
};

double LimitsBench::Seconds(const std::function<void()>& work) {
  const absl::Duration start = clock_.Now();
  work();
  return absl::ToDoubleSeconds(clock_.Now() - start);
}

double LimitsBench::Decode(const Subject& s, int batch, const Slots& slots,
                           int steps) {
  s.runner->Run(batch, 1, kContext, slots);  // warms up
  return Seconds([&] {
           for (int i = 0; i < steps; ++i) {
             s.runner->Run(batch, 1, kContext + i, slots);
           }
         }) /
         steps;
}

double LimitsBench::Prefill(const Subject& s) {
  return Seconds([&] { s.runner->Run(1, kPrefillRows, 0, {}); });
}

void LimitsBench::Add(const std::string& name, double goal,
                      const std::function<double()>& round,
                      const std::function<std::string()>& note) {
  if (!Wanted(name)) return;
  std::fprintf(stderr, "measuring: %s\n", name.c_str());
  Figure figure{name, goal, false, {}, ""};
  round();
  for (int i = 0; i < options_.rounds; ++i) figure.rounds.push_back(round());
  if (note != nullptr) figure.note = note();
  figures_.push_back(std::move(figure));
}

void LimitsBench::LeaveOut(const std::string& name, double goal,
                           const std::string& why) {
  if (Wanted(name)) figures_.push_back({name, goal, false, {}, why});
}

// ---- the base in its own dtype ----------------------------------------------

absl::Status LimitsBench::MeasureBase() {
  const Model& model = base_.model();
  constexpr int kSteps = 12;
  double step = 0;
  Add(
      absl::StrCat("decode, batch 1, ", Name(model.dtype()),
                   ": weights read / read bandwidth"),
      0.85,
      [&] {
        const double peak = ReadPeak();
        step = Decode(base_, 1, {}, kSteps);
        return StepWeightBytes(model) / step / peak;
      },
      [&] { return absl::StrFormat("%.1f tokens/s", 1 / step); });

  const double flops = LinearFlopsPerToken(model) * kPrefillRows;
  LinearProbe linears(model, base_.ops(), kPrefillRows);
  Add("prefill 512: linear groups / FMA peak", 0.80, [&] {
    const double peak = FmaPeak();
    return flops / Seconds([&] { linears.Run(); }) / peak;
  });
  double seconds = 0;
  Add(
      "prefill 512: whole engine / FMA peak", 0.70,
      [&] {
        const double peak = FmaPeak();
        seconds = Prefill(base_);
        return flops / seconds / peak;
      },
      [&] { return absl::StrFormat("%.0f tokens/s", kPrefillRows / seconds); });
  return absl::OkStatus();
}

absl::Status LimitsBench::MeasureBf16Compute() {
  const std::string name =
      "prefill 512, --compute-dtype bf16: linear groups / bf16-dot peak";
  if (!Wanted(name)) return absl::OkStatus();
  ServerOptions options = options_.server;
  options.compute_dtype = "bf16";
  auto subject = MakeSubject(options, 1, kPrefillRows);
  if (!subject.ok()) {
    LeaveOut(name, 0.70, std::string(subject.status().message()));
    return absl::OkStatus();
  }
  const double flops = LinearFlopsPerToken(subject->model()) * kPrefillRows;
  LinearProbe linears(subject->model(), subject->ops(), kPrefillRows);
  Add(
      name, 0.70,
      [&] {
        const double peak = DotPeak();
        return flops / Seconds([&] { linears.Run(); }) / peak;
      },
      [&] {
        return absl::StrFormat("whole engine: %.0f tokens/s",
                               kPrefillRows / Prefill(*subject));
      });
  return absl::OkStatus();
}

// ---- int8 -------------------------------------------------------------------

// exp of the mean negative log-probability of tokens 1.. in one context.
double Perplexity(const Subject& s, const std::vector<Token>& tokens) {
  Forward forward(s.model(), s.ops(), *s.pool);
  const auto stream = s.ops().NewStream();
  const auto count = static_cast<int32_t>(tokens.size());
  std::vector<int32_t> table;
  for (int64_t i = 0; i < BlocksFor(1, count); ++i) {
    table.push_back(static_cast<int32_t>(i));
  }
  double sum = 0;
  for (int32_t begin = 0; begin < count; begin += kPrefillRows) {
    const int32_t end = std::min(count, begin + kPrefillRows);
    std::vector<int32_t> rows;
    std::vector<Token> targets;
    for (int32_t i = begin; i < std::min(end, count - 1); ++i) {
      rows.push_back(i - begin);
      targets.push_back(tokens[static_cast<size_t>(i) + 1]);
    }
    const std::vector<SequenceRows> sequences = {
        {0, end - begin, begin, table}};
    ForwardBatch batch;
    batch.tokens = std::span(tokens).subspan(static_cast<size_t>(begin),
                                             static_cast<size_t>(end - begin));
    batch.sequences = sequences;
    batch.logit_rows = rows;
    std::vector<SampledRow> out(rows.size());
    s.ops().Logprobs(forward.Run(batch, *stream), targets, 0, out, *stream);
    for (const SampledRow& row : out) sum -= static_cast<double>(row.logprob);
  }
  return std::exp(sum / (count - 1));
}

absl::Status LimitsBench::MeasureInt8() {
  ServerOptions options = options_.server;
  options.dtype = "int8";
  ASSIGN_OR_RETURN(const Subject int8,
                   MakeSubject(options, 1, kPerplexityTokens));
  constexpr int kSteps = 16;
  double step = 0;
  Add(
      "decode, batch 1, int8: weights read / read bandwidth", 0.80,
      [&] {
        const double peak = ReadPeak();
        step = Decode(int8, 1, {}, kSteps);
        return StepWeightBytes(int8.model()) / step / peak;
      },
      [&] { return absl::StrFormat("%.1f tokens/s", 1 / step); });
  double seconds = 0;
  Add(
      absl::StrCat("prefill 512, int8 / ", Name(base_.model().dtype()),
                   ": tokens per second"),
      1.2,
      [&] {
        const double base = Prefill(base_);
        seconds = Prefill(int8);
        return base / seconds;
      },
      [&] { return absl::StrFormat("%.0f tokens/s", kPrefillRows / seconds); });

  const std::string name = "perplexity, int8 / own dtype (at most)";
  if (!Wanted(name)) return absl::OkStatus();
  if (options_.text.empty()) {
    LeaveOut(name, 1.01, "no --text");
    return absl::OkStatus();
  }
  PosixFileSystem fs;
  ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(options_.text, 1 << 20));
  ASSIGN_OR_RETURN(const auto tokenizer,
                   Tokenizer::Load(fs, options_.server.model_dir));
  ASSIGN_OR_RETURN(std::vector<Token> tokens, tokenizer->Encode(text, {}));
  if (tokens.size() > kPerplexityTokens) tokens.resize(kPerplexityTokens);
  const double before = Perplexity(base_, tokens);
  const double after = Perplexity(int8, tokens);
  figures_.push_back({name,
                      1.01,
                      true,
                      {after / before},
                      absl::StrFormat("%.3f, own dtype %.3f, %d tokens", after,
                                      before, tokens.size())});
  return absl::OkStatus();
}

// ---- adapters ---------------------------------------------------------------

Slots PointersOf(const std::vector<std::shared_ptr<const LoraSlot>>& adapters) {
  Slots slots;
  for (const auto& adapter : adapters) slots.push_back(adapter.get());
  return slots;
}

std::vector<std::shared_ptr<const LoraSlot>> MakeAdapters(
    const Subject& s, int count, const std::vector<int>& ranks) {
  std::vector<std::shared_ptr<const LoraSlot>> adapters;
  for (int i = 0; i < count; ++i) {
    adapters.push_back(RandomAdapter(
        s.model(), s.ops(), ranks[static_cast<size_t>(i) % ranks.size()],
        DType::kBF16, static_cast<uint64_t>(i) + 1));
  }
  return adapters;
}

double AdapterBytes(const Slots& slots) {
  double bytes = 0;
  for (const LoraSlot* slot : slots) {
    for (const LoraSlot::Entry& entry : slot->entries) {
      if (entry.weights == nullptr) continue;
      bytes += static_cast<double>(entry.weights->size_bytes());
    }
  }
  return bytes;
}

void LimitsBench::MeasureAdapters() {
  constexpr int kBatch = 8;
  constexpr int kSteps = 12;
  Add("8 adapters loaded, none active / none loaded, 8 requests", 0.99, [&] {
    const double without = Decode(base_, kBatch, {}, kSteps);
    const auto adapters = MakeAdapters(base_, kBatch, {16});
    return without / Decode(base_, kBatch, {}, kSteps);
  });
  const auto adapters = MakeAdapters(base_, kBatch, {16});
  const Slots slots = PointersOf(adapters);
  const double weights = StepWeightBytes(base_.model());
  const double allowed = weights / (weights + AdapterBytes(slots));
  double ratio = 0;
  Add(
      "8 distinct rank-16 adapters, batch 8: ratio to base / ratio of bytes",
      0.85,
      [&] {
        const double base = Decode(base_, kBatch, {}, kSteps);
        ratio = base / Decode(base_, kBatch, slots, kSteps);
        return ratio / allowed;
      },
      [&] {
        return absl::StrFormat("ratio %.2f, bytes allow %.2f", ratio, allowed);
      });
}

// ---- the 1.1B shapes --------------------------------------------------------

// A directory that goes when this does.
class TemporaryModel {
 public:
  absl::Status Write(const std::string& config) {
    std::string dir = "/tmp/lorikeet-shapes-XXXXXX";
    if (::mkdtemp(dir.data()) == nullptr) {
      return absl::InternalError("no temporary directory in /tmp");
    }
    dir_ = dir;
    ASSIGN_OR_RETURN(const auto file, fs_.Create(dir_ + "/config.json"));
    return file->Append(config);
  }
  ~TemporaryModel() {
    if (!dir_.empty()) fs_.RemoveTree(dir_).IgnoreError();
  }
  const std::string& dir() const { return dir_; }

 private:
  PosixFileSystem fs_;
  std::string dir_;
};

absl::Status LimitsBench::MeasureLarge() {
  const std::string distinct =
      "1.1B shapes, 8 distinct rank-16 adapters / base, batch 8";
  const std::string one = "1.1B shapes, 8 requests on one adapter / base";
  const std::string mixed =
      "1.1B shapes, 32 adapters of ranks 4..64 / base, batch 32";
  if (!Wanted(distinct) && !Wanted(one) && !Wanted(mixed)) {
    return absl::OkStatus();
  }
  if (!options_.large) {
    LeaveOut(distinct, 0.90, "--no-large");
    LeaveOut(one, 0.95, "--no-large");
    LeaveOut(mixed, 0.80, "--no-large");
    return absl::OkStatus();
  }
  TemporaryModel shapes;
  RETURN_IF_ERROR(shapes.Write(kTinyLlamaConfig));
  ServerOptions options = options_.server;
  options.model_dir = shapes.dir();
  options.load_format = "dummy";
  options.dtype = "bf16";
  ASSIGN_OR_RETURN(const Subject s, MakeSubject(options, 32, kContext + 8));
  {
    constexpr int kSteps = 4;
    const auto adapters = MakeAdapters(s, 8, {16});
    const Slots slots = PointersOf(adapters);
    double base = 0;
    const auto note = [&] {
      return absl::StrFormat("base %.1f tokens/s", 8 / base);
    };
    Add(
        distinct, 0.90,
        [&] {
          base = Decode(s, 8, {}, kSteps);
          return base / Decode(s, 8, slots, kSteps);
        },
        note);
    Add(
        one, 0.95,
        [&] {
          base = Decode(s, 8, {}, kSteps);
          return base / Decode(s, 8, {slots[0]}, kSteps);
        },
        note);
  }
  const auto adapters =
      MakeAdapters(s, 32, {std::begin(kLargeRanks), std::end(kLargeRanks)});
  double base = 0;
  Add(
      mixed, 0.80,
      [&] {
        base = Decode(s, 32, {}, 2);
        return base / Decode(s, 32, PointersOf(adapters), 2);
      },
      [&] { return absl::StrFormat("base %.1f tokens/s", 32 / base); });
  return absl::OkStatus();
}

// ---- memory -----------------------------------------------------------------

absl::Status LimitsBench::MeasureMemory() {
  const std::string name =
      "idle server: MiB resident beyond weights and KV cache (at most)";
  if (!Wanted(name)) return absl::OkStatus();
  std::fprintf(stderr, "measuring: %s\n", name.c_str());
  ASSIGN_OR_RETURN(const int64_t bytes,
                   ResidentBytesOfIdleServer(options_.server));
  const double mib =
      static_cast<double>(bytes - base_.model().weight_bytes()) / (1 << 20);
  figures_.push_back({name, 150, true, {mib}, ""});
  return absl::OkStatus();
}

absl::Status LimitsBench::Run() {
  // First, while this process itself is small.
  ASSIGN_OR_RETURN(base_, MakeSubject(options_.server, 8, kPerplexityTokens));
  RETURN_IF_ERROR(MeasureMemory());
  probe_ = std::make_unique<MachineProbe>(*base_.runtime->pool, clock_);
  for (int i = 0; i < 3; ++i) {
    ReadPeak();
    FmaPeak();
    DotPeak();
  }
  RETURN_IF_ERROR(MeasureBase());
  RETURN_IF_ERROR(MeasureBf16Compute());
  RETURN_IF_ERROR(MeasureInt8());
  MeasureAdapters();
  return MeasureLarge();
}

std::string LimitsBench::MachineLine() const {
  std::string line =
      absl::StrFormat("%s/%s, %d threads; reads %.1f GB/s, %.0f GFLOP/s f32",
                      base_.ops().Name(), base_.ops().Target(),
                      base_.runtime->pool->num_threads(), Median(read_) / 1e9,
                      Median(fma_) / 1e9);
  if (Median(dot_) > 0) {
    absl::StrAppend(
        &line, absl::StrFormat(", %.0f GFLOP/s bf16 dot", Median(dot_) / 1e9));
  }
  return line;
}

// ---- output -----------------------------------------------------------------

std::string Verdict(const Figure& f) {
  if (f.rounds.empty()) return "left out";
  if (f.Noisy()) return "noisy";
  return f.Met() ? "met" : "missed";
}

void PrintTable(const LimitsBench& bench) {
  std::printf("machine: %s (medians)\n\n", bench.MachineLine().c_str());
  std::printf("%-70s %7s %7s %7s  %-8s %s\n", "figure", "value", "goal",
              "spread", "verdict", "");
  for (const Figure& f : bench.figures()) {
    const std::string value =
        f.rounds.empty() ? "-" : absl::StrFormat("%.3f", f.Value());
    const std::string spread =
        f.rounds.size() < 2 ? "-"
                            : absl::StrFormat("%.1f%%", 100 * Spread(f.rounds));
    std::printf("%-70s %7s %7.2f %7s  %-8s %s\n", f.name.c_str(), value.c_str(),
                f.goal, spread.c_str(), Verdict(f).c_str(), f.note.c_str());
  }
}

void PrintJson(const LimitsBench& bench) {
  Json out = Json::Object();
  out.Set("machine", bench.MachineLine());
  Json figures = Json::Array();
  for (const Figure& f : bench.figures()) {
    Json figure = Json::Object();
    figure.Set("name", f.name);
    figure.Set("goal", f.goal);
    if (!f.rounds.empty()) figure.Set("value", f.Value());
    if (f.rounds.size() > 1) figure.Set("spread", Spread(f.rounds));
    figure.Set("verdict", Verdict(f));
    figure.Set("note", f.note);
    figures.Append(std::move(figure));
  }
  out.Set("figures", std::move(figures));
  std::printf("%s\n", out.Dump(2).c_str());
}

// The figures are the CPU's.
absl::Status ChooseCpu(ServerOptions* server) {
  if (server->device != "auto" && server->device != "cpu") {
    return absl::InvalidArgumentError(absl::StrCat(
        "--device ", server->device, ": these are limits of the CPU, use cpu"));
  }
  server->device = "cpu";
  return absl::OkStatus();
}

absl::Status RunLimits(LimitsOptions options, int* exit_code) {
  RETURN_IF_ERROR(CheckOptions(options.server));
  RETURN_IF_ERROR(ChooseCpu(&options.server));
  RETURN_IF_ERROR(ApplyLogFlags(options.server));
  LimitsBench bench(options);
  RETURN_IF_ERROR(bench.Run());
  (options.json ? PrintJson : PrintTable)(bench);
  const bool noisy = std::any_of(bench.figures().begin(), bench.figures().end(),
                                 [](const Figure& f) { return f.Noisy(); });
  if (noisy) {
    std::fprintf(
        stderr,
        "lorikeet bench limits: some figures lie more than %.0f %% "
        "apart from round to round; this machine is too noisy to say\n",
        100 * kMaxSpread);
    *exit_code = kNoisyExitCode;
  }
  return absl::OkStatus();
}

}  // namespace

void AddBenchLimitsCommand(CLI::App& bench, int* exit_code) {
  auto options = std::make_shared<LimitsOptions>();
  CLI::App* app = bench.add_subcommand(
      "limits",
      "How near the CPU backend comes to what this machine allows: one line a "
      "figure, as ratios to peaks and baselines measured beside it. Exit code "
      "3: too noisy to say");
  options->server.log_level = "warning";
  AddModelFlags(*app, &options->server);
  app->add_option("--text", options->text,
                  "Text file for the perplexity of int8; without it left out");
  app->add_option("--only", options->only,
                  "Measure only figures whose name contains this");
  app->add_option("--rounds", options->rounds, "Rounds of each figure")
      ->check(CLI::Range(3, 1000))
      ->capture_default_str();
  app->add_flag("--large,!--no-large", options->large,
                "The figures on 1.1B shapes, which take 4 GB (default on)");
  app->add_flag("--json", options->json, "Print JSON");
  app->footer("Example:\n  lorikeet bench limits --model DIR --text book.txt");
  app->callback([app, options, exit_code] {
    absl::Status status = ApplyConfigFile(*app, options->server);
    if (status.ok()) status = RunLimits(*options, exit_code);
    if (!status.ok()) {
      std::fprintf(stderr, "lorikeet bench limits: %s\n",
                   std::string(status.message()).c_str());
      *exit_code = 1;
    }
  });
}

}  // namespace lorikeet
