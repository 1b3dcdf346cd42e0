// A StepCostProbe measures what the merge chooser has to know of this machine:
// the time of the layers' linears for some numbers of rows, and what a low-rank
// part adds. It times the operators that a step uses, on as many layers as make
// caches irrelevant, and scales up.
//
// Engine thread only: the operators are used. What it measures with lies in the
// device's memory while it lives.

#ifndef LORIKEET_SERVER_ENGINE_STEP_COST_PROBE_H_
#define LORIKEET_SERVER_ENGINE_STEP_COST_PROBE_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "adapters/base_weights.h"
#include "base/clock.h"
#include "kernels/memory.h"
#include "kernels/ops.h"
#include "server/scheduler/merge_chooser.h"

namespace lorikeet {

class StepCostProbe {
 public:
  // All must outlive this. Weights are only read. `max_rows` are the most
  // sequences of a step.
  // Errors: RESOURCE_EXHAUSTED if the device has no memory for it, INTERNAL if
  // the device is at fault.
  static absl::StatusOr<std::unique_ptr<StepCostProbe>> Create(
      const BaseWeights& base, Ops& ops, const Clock& clock, int64_t max_rows);
  ~StepCostProbe();

  // Takes the next measurement, of some passes over weights; returns the costs
  // with the last one. Errors: as Create.
  absl::StatusOr<std::optional<StepCosts>> RunPiece();

 private:
  StepCostProbe(const BaseWeights& base, Ops& ops, const Clock& clock,
                int64_t max_rows);
  absl::Status Allocate();
  // In seconds, scaled to all layers.
  absl::StatusOr<double> TimePasses(int64_t rows, const LoraBatch& lora);
  absl::StatusOr<double> TimeLora(int64_t rows);
  void RunLayers(int64_t rows, const LoraBatch& lora);
  LoraBatch OneSegment(int64_t rows) const;

  const BaseWeights base_;
  Ops& ops_;
  const Clock& clock_;
  const int64_t max_rows_;
  int64_t layers_ = 1;  // that are timed
  const std::unique_ptr<Stream> stream_;
  std::unique_ptr<LoraSlot> slot_;
  std::unique_ptr<Memory> in_, out_;
  int64_t next_rows_ = 1;
  StepCosts costs_;
};

}  // namespace lorikeet

#endif  // LORIKEET_SERVER_ENGINE_STEP_COST_PROBE_H_
