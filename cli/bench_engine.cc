// Measures decode and prefill of the engine's own step (forward pass and
// greedy sampling) for the base, for one adapter, and for as many distinct
// adapters as rows. The three take turns in every round, so that a ratio
// compares what ran within the same second.

#include "cli/bench_engine.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/json.h"
#include "base/status.h"
#include "base/text.h"
#include "cli/engine_probe.h"
#include "kernels/cpu/machine_peaks.h"
#include "model/kv_pool.h"
#include "server/options.h"
#include "server/runtime.h"

namespace lorikeet {
namespace {

struct BenchOptions {
  ServerOptions server;
  std::vector<int> batches = {1, 4, 8, 16};
  std::vector<int> ranks = {16};
  int context = 64;  // tokens in the cache before a decode step
  int steps = 16;    // decode steps of one turn
  int rounds = 7;
  int prefill = 512;  // tokens of a prefill turn; 0 = none
  bool json = false;
};

constexpr const char* kScenarios[] = {"base", "one adapter",
                                      "distinct adapters"};
constexpr int kNumScenarios = 3;

// Tokens per second of the scenarios, one entry a round.
struct Measurement {
  std::string phase;  // "decode" or "prefill"
  int batch = 0;
  std::vector<double> rates[kNumScenarios];

  double Rate(int scenario) const { return Median(rates[scenario]); }
  double Ratio(int scenario) const {
    std::vector<double> ratios;
    for (size_t i = 0; i < rates[0].size(); ++i) {
      ratios.push_back(rates[scenario][i] / rates[0][i]);
    }
    return Median(ratios);
  }
  double Noise(int scenario) const { return Spread(rates[scenario]); }
};

class EngineBench {
 public:
  EngineBench(const BenchOptions& options, Runtime& runtime, KvPool& pool)
      : options_(options),
        runtime_(runtime),
        runner_(*runtime.model, *runtime.ops, pool) {}

  void MakeAdapters() {
    const int count =
        *std::max_element(options_.batches.begin(), options_.batches.end());
    const DType dtype =
        ParseDType(options_.server.adapter_dtype).value_or(DType::kBF16);
    for (int i = 0; i < count; ++i) {
      const int rank =
          options_.ranks[static_cast<size_t>(i) % options_.ranks.size()];
      adapters_.push_back(RandomAdapter(*runtime_.model, *runtime_.ops, rank,
                                        dtype, static_cast<uint64_t>(i) + 1));
    }
  }

  Measurement Decode(int batch) {
    Measurement m{"decode", batch, {}};
    for (int round = -1; round < options_.rounds; ++round) {
      for (int s = 0; s < kNumScenarios; ++s) {
        const auto slots = Slots(s, batch);
        const absl::Duration start = runtime_.clock.Now();
        for (int step = 0; step < options_.steps; ++step) {
          runner_.Run(batch, 1, options_.context + step, slots);
        }
        const double seconds =
            absl::ToDoubleSeconds(runtime_.clock.Now() - start);
        // Round -1 warms up.
        if (round >= 0) m.rates[s].push_back(batch * options_.steps / seconds);
      }
    }
    return m;
  }

  // One prompt of `prefill` tokens; with distinct adapters `batch` shorter
  // ones.
  Measurement Prefill(int batch) {
    Measurement m{"prefill", batch, {}};
    for (int round = -1; round < options_.rounds; ++round) {
      for (int s = 0; s < kNumScenarios; ++s) {
        const auto slots = Slots(s, batch);
        const int rows = std::max(1, options_.prefill / batch);
        const absl::Duration start = runtime_.clock.Now();
        runner_.Run(batch, rows, 0, slots);
        const double seconds =
            absl::ToDoubleSeconds(runtime_.clock.Now() - start);
        if (round >= 0) m.rates[s].push_back(batch * rows / seconds);
      }
    }
    return m;
  }

 private:
  std::vector<const LoraSlot*> Slots(int scenario, int batch) const {
    std::vector<const LoraSlot*> slots;
    const int count = scenario == 0 ? 0 : scenario == 1 ? 1 : batch;
    for (int i = 0; i < count; ++i) {
      slots.push_back(adapters_[static_cast<size_t>(i)].get());
    }
    return slots;
  }

  const BenchOptions& options_;
  Runtime& runtime_;
  StepRunner runner_;
  std::vector<std::shared_ptr<const LoraSlot>> adapters_;
};

void PrintTable(const BenchOptions& options, const Runtime& runtime,
                const MachinePeaks& peaks,
                const std::vector<Measurement>& measurements) {
  const Model& model = *runtime.model;
  std::printf("model      %s, %s weights in %s\n",
              options.server.model_dir.c_str(),
              HumanBytes(static_cast<uint64_t>(model.weight_bytes())).c_str(),
              Name(model.dtype()));
  std::printf("device     %s/%s, %d threads\n", runtime.ops->Name().c_str(),
              runtime.ops->Target().c_str(), runtime.pool->num_threads());
  std::printf("machine    reads %.1f GB/s, %.0f GFLOP/s f32 (measured)\n",
              peaks.read_bytes_per_second / 1e9,
              peaks.f32_flops_per_second / 1e9);
  std::printf("\n%-8s %5s  %-18s %10s %7s %7s  %s\n", "phase", "batch",
              "adapters", "tokens/s", "ratio", "spread", "of the machine");
  for (const Measurement& m : measurements) {
    for (int s = 0; s < kNumScenarios; ++s) {
      std::string share;
      if (s == 0 && m.phase == "decode") {
        share = absl::StrFormat("%.2f of read bandwidth",
                                m.Rate(0) / m.batch * StepWeightBytes(model) /
                                    peaks.read_bytes_per_second);
      } else if (s == 0) {
        share = absl::StrFormat("%.2f of FMA peak (linears)",
                                m.Rate(0) * LinearFlopsPerToken(model) /
                                    peaks.f32_flops_per_second);
      }
      std::printf("%-8s %5d  %-18s %10.1f %7.3f %6.1f%%  %s\n", m.phase.c_str(),
                  m.batch, kScenarios[s], m.Rate(s), m.Ratio(s),
                  100 * m.Noise(s), share.c_str());
    }
  }
}

void PrintJson(const BenchOptions& options, const Runtime& runtime,
               const MachinePeaks& peaks,
               const std::vector<Measurement>& measurements) {
  Json out = Json::Object();
  out.Set("model", options.server.model_dir);
  out.Set("weight_bytes", runtime.model->weight_bytes());
  out.Set("device",
          absl::StrCat(runtime.ops->Name(), "/", runtime.ops->Target()));
  out.Set("threads", runtime.pool->num_threads());
  out.Set("read_bytes_per_second", peaks.read_bytes_per_second);
  out.Set("f32_flops_per_second", peaks.f32_flops_per_second);
  Json rows = Json::Array();
  for (const Measurement& m : measurements) {
    for (int s = 0; s < kNumScenarios; ++s) {
      Json row = Json::Object();
      row.Set("phase", m.phase);
      row.Set("batch", m.batch);
      row.Set("adapters", kScenarios[s]);
      row.Set("tokens_per_second", m.Rate(s));
      row.Set("ratio_to_base", m.Ratio(s));
      row.Set("spread", m.Noise(s));
      rows.Append(std::move(row));
    }
  }
  out.Set("results", std::move(rows));
  std::printf("%s\n", out.Dump(2).c_str());
}

absl::Status RunBench(const BenchOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options.server));
  RETURN_IF_ERROR(ApplyLogFlags(options.server));
  ASSIGN_OR_RETURN(const std::unique_ptr<Runtime> runtime,
                   Runtime::CreateModelOnly(options.server));
  const int largest =
      *std::max_element(options.batches.begin(), options.batches.end());
  const int tokens = std::max(options.context + options.steps, options.prefill);
  const int64_t blocks = BlocksFor(largest, tokens);
  const DType kv_dtype = KvDType(options.server, *runtime->ops);
  ASSIGN_OR_RETURN(KvPool pool,
                   KvPool::Create(runtime->model->config(), kv_dtype, blocks,
                                  runtime->ops.get()));
  std::fprintf(stderr, "measuring the machine\n");
  const MachinePeaks peaks =
      MeasureMachinePeaks(*runtime->pool, runtime->clock);
  EngineBench bench(options, *runtime, pool);
  std::fprintf(stderr, "making %d random adapters\n", largest);
  bench.MakeAdapters();
  std::vector<Measurement> measurements;
  for (const int batch : options.batches) {
    std::fprintf(stderr, "decode, batch %d\n", batch);
    measurements.push_back(bench.Decode(batch));
  }
  if (options.prefill > 0) {
    std::fprintf(stderr, "prefill, %d tokens\n", options.prefill);
    measurements.push_back(bench.Prefill(1));
    if (largest > 1)
      measurements.push_back(bench.Prefill(std::min(8, largest)));
  }
  (options.json ? PrintJson : PrintTable)(options, *runtime, peaks,
                                          measurements);
  return absl::OkStatus();
}

}  // namespace

void AddBenchEngineCommand(CLI::App& bench, int* exit_code) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* app = bench.add_subcommand(
      "engine",
      "Decode and prefill speed without a network: base, one adapter, and as "
      "many distinct adapters as rows (random weights), as ratios to the base");
  options->server.log_level = "warning";
  AddModelFlags(*app, &options->server);
  app->add_option("--batch", options->batches, "Batch sizes, e.g. 1,4,8,16")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app->add_option("--ranks", options->ranks,
                  "Ranks of the adapters, in turn, e.g. 4,16,64")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app->add_option("--context", options->context,
                  "Tokens in the KV cache before the decode steps")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app->add_option("--steps", options->steps, "Decode steps of one turn")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app->add_option("--rounds", options->rounds, "Turns of each scenario")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app->add_option("--prefill", options->prefill,
                  "Tokens of a prefill turn; 0 = none")
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
  app->add_flag("--json", options->json, "Print JSON");
  app->footer(
      "Example:\n  lorikeet bench engine --model DIR --batch 1,8 --ranks 16");
  app->callback([app, options, exit_code] {
    absl::Status status = ApplyConfigFile(*app, options->server);
    if (status.ok()) status = RunBench(*options);
    if (!status.ok()) {
      std::fprintf(stderr, "lorikeet bench engine: %s\n",
                   std::string(status.message()).c_str());
      *exit_code = 1;
    }
  });
}

}  // namespace lorikeet
