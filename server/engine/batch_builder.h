// A BatchBuilder turns a plan into the input of a step: sequences of the same
// adapters side by side, so that they are one segment, and base rows last; and
// it remembers whose the results will be. Rows before the position where an
// adapter begins to act are base rows.
//
// Engine thread only.

#ifndef LORIKEET_SERVER_ENGINE_BATCH_BUILDER_H_
#define LORIKEET_SERVER_ENGINE_BATCH_BUILDER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "server/engine/adapter_residency.h"
#include "server/engine/model_runner.h"
#include "server/engine/request_state.h"
#include "server/scheduler/scheduler.h"

namespace lorikeet {

class BatchBuilder {
 public:
  // Who gets sampling row i of the step.
  struct Sample {
    SequenceId sequence;
    RequestState* request = nullptr;
    int32_t candidate = 0;
  };
  // Who gets the next `count` logprobs: those of prompt tokens from
  // `position` + 1 on.
  struct PromptRows {
    RequestState* request = nullptr;
    int32_t position = 0;
    int32_t count = 0;
  };

  // Returns the step, valid until the next Build. REQUIRES: the adapters of
  // the plan are leased in `residency`, its requests are in `requests`.
  const StepInput& Build(const StepPlan& plan, const Scheduler& scheduler,
                         const AdapterResidency& residency,
                         const RequestTable& requests);

  std::span<const Sample> samples() const { return samples_; }
  std::span<const PromptRows> prompt_rows() const { return prompt_rows_; }
  // Whose raw logits are copied.
  std::span<RequestState* const> copies() const { return copies_; }

 private:
  static constexpr size_t kBase = SIZE_MAX;
  struct Item {
    const PlannedSequence* planned = nullptr;
    RequestState* request = nullptr;
    size_t group = kBase;  // index into terms_
  };
  size_t GroupOf(const RequestState& request,
                 const AdapterResidency& residency);
  void Sort(const StepPlan& plan, const AdapterResidency& residency,
            const RequestTable& requests);
  void AddRows(const Item& item);
  void AddSegment(const Item& item, const SequenceRows& rows);
  void AddLogits(const Item& item, int32_t row_begin,
                 const Scheduler& scheduler);
  void AddSamples(const Item& item, int32_t logits, const Scheduler& scheduler);

  std::vector<Item> items_;
  std::vector<std::vector<LoraTerm>> terms_;  // by group
  size_t last_group_ = kBase;                 // of the last segment
  StepInput input_;
  std::vector<Sample> samples_;
  std::vector<PromptRows> prompt_rows_;
  std::vector<RequestState*> copies_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_BATCH_BUILDER_H_
