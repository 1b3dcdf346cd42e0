// A BatchPlan says which examples a step trains on, from seed and step alone,
// and packs sequences into batches of a token budget.
//
// Every epoch goes through all examples in an order of its own; its last step
// may have fewer. Pure, but for the order of one epoch that is kept.

#ifndef LORIKEET_TRAIN_BATCH_PLAN_H_
#define LORIKEET_TRAIN_BATCH_PLAN_H_

#include <cstdint>
#include <vector>

#include "train/train_sequence.h"

namespace lorikeet {

class BatchPlan {
 public:
  // REQUIRES: both numbers > 0.
  BatchPlan(int64_t num_examples, int64_t examples_per_step, uint64_t seed);

  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  // Indices of the examples of step t, from 1.
  std::vector<size_t> ExamplesOf(int64_t step);

 private:
  void ShuffleFor(int64_t epoch);

  const int64_t num_examples_;
  const int64_t examples_per_step_;
  const uint64_t seed_;
  const int64_t steps_per_epoch_;
  int64_t epoch_ = -1;  // of order_
  std::vector<size_t> order_;
};

// Cuts `sequences`, in their order, into batches of at most `max_tokens`
// tokens. REQUIRES: none is longer.
std::vector<TrainBatch> PackBatches(const TrainBatch& sequences,
                                    int64_t max_tokens);

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_BATCH_PLAN_H_
