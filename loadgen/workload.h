// A Workload is the list of requests to send, made one by one: when, for which
// adapter, with which prompt, how long. The same options give the same list.
//
// Thread-compatible.

#ifndef LORIKEET_LOADGEN_WORKLOAD_H_
#define LORIKEET_LOADGEN_WORKLOAD_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/random.h"
#include "loadgen/arrivals.h"
#include "loadgen/lengths.h"
#include "loadgen/popularity.h"

namespace lorikeet {

// A prompt to choose from, instead of random tokens.
struct PromptChoice {
  std::string text;
  uint32_t max_tokens = 0;
};

// One task of the load.
struct LoadTask {
  std::string name;
  // If not empty, prompts are drawn from here and answers end by themselves.
  std::vector<PromptChoice> prompts;
};

struct WorkloadOptions {
  // At least one.
  std::vector<LoadTask> tasks;
  Popularity popularity = Popularity::kUniform;
  double zipf_s = 1;
  // Open loop: Poisson arrivals. Absent = closed loop, each request starts as
  // soon as there is room.
  std::optional<double> requests_per_second;
  // The load ends with the first of these; 0 and infinity = without limit.
  uint64_t num_requests = 0;
  absl::Duration duration = absl::InfiniteDuration();
  // For tasks without prompts.
  Lengths prompt_tokens{128};
  Lengths output_tokens{64};
  // What random prompts are made of; not empty if a task has no prompts.
  std::vector<uint32_t> alphabet;
  uint64_t seed = 0;
};

struct LoadRequest {
  // Since the beginning of the load; nullopt = as soon as there is room.
  std::optional<absl::Duration> start;
  // Index into WorkloadOptions::tasks.
  size_t task = 0;
  // One of them is not empty.
  std::string text;
  std::vector<uint32_t> token_ids;
  uint32_t max_tokens = 0;
  // True = it gives exactly max_tokens.
  bool ignore_eos = false;
};

class Workload {
 public:
  explicit Workload(WorkloadOptions options);

  const WorkloadOptions& options() const { return options_; }
  // Returns the next request, given the time since the beginning; nullopt
  // after the last.
  std::optional<LoadRequest> Next(absl::Duration elapsed);

 private:
  const WorkloadOptions options_;
  // Each choice has numbers of its own, so that changing one flag does not
  // shuffle the others.
  AdapterPicker picker_;
  std::optional<PoissonArrivals> arrivals_;
  Rng length_rng_;
  Rng prompt_rng_;
  uint64_t made_ = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_LOADGEN_WORKLOAD_H_
