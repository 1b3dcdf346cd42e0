// A ModelRunner computes steps: forward pass, logprobs, sampling. The seam
// between the engine and a device, which lets tests run without a model.
//
// Engine thread only.

#ifndef LORIKEET_SERVER_ENGINE_MODEL_RUNNER_H_
#define LORIKEET_SERVER_ENGINE_MODEL_RUNNER_H_

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/token.h"
#include "kernels/lora_batch.h"
#include "kernels/paged_kv.h"
#include "kernels/sampling.h"

namespace lorikeet {

// One step. Spans inside must stay valid until Wait has returned.
struct StepInput {
  // Consecutive rows of logits and the tokens that followed them.
  struct LogprobRows {
    int32_t first = 0;  // index into logit_rows
    std::span<const Token> targets;
    int32_t num_logprobs = 0;
  };

  std::vector<Token> tokens;            // one per row
  std::vector<SequenceRows> sequences;  // cover the rows in order
  LoraBatch lora;
  // Done one after the other before anything else, (from, to).
  std::vector<std::pair<int32_t, int32_t>> block_copies;
  std::vector<int32_t> logit_rows;  // rows whose logits are wanted, ascending
  std::vector<LogprobRows> logprobs;
  std::vector<int32_t> copies;        // into logit_rows: raw logits wanted
  std::vector<int32_t> sampled;       // into logit_rows, one per sampling row;
  std::vector<SamplingRow> sampling;  // several may use one row of logits

  void Clear();
};

struct StepResult {
  absl::Status status;               // not OK: nothing of the step counts
  std::vector<SampledRow> sampled;   // one per sampling row
  std::vector<SampledRow> logprobs;  // of all LogprobRows one after the other
  std::vector<float> copies;         // [copies, vocab]
};

struct StepTicket {
  int64_t number = 0;
};

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  // Starts a step. REQUIRES: the one before was waited for; `input` outlives
  // the Wait.
  virtual StepTicket Submit(const StepInput& input) = 0;
  // Returns what it gave.
  virtual StepResult Wait(StepTicket ticket) = 0;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_MODEL_RUNNER_H_
