#include "train/batch_plan.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/random.h"

namespace lorikeet {
namespace {

// Keeps the numbers of epochs apart from others made from the same seed.
constexpr uint64_t kEpochKey = 0x65706f6368000000;  // "epoch"

}  // namespace

BatchPlan::BatchPlan(int64_t num_examples, int64_t examples_per_step,
                     uint64_t seed)
    : num_examples_(num_examples),
      examples_per_step_(examples_per_step),
      seed_(seed),
      steps_per_epoch_((num_examples + examples_per_step - 1) /
                       examples_per_step) {
  CHECK_GT(num_examples, 0);
  CHECK_GT(examples_per_step, 0);
}

void BatchPlan::ShuffleFor(int64_t epoch) {
  if (epoch == epoch_) return;
  epoch_ = epoch;
  order_.resize(static_cast<size_t>(num_examples_));
  std::iota(order_.begin(), order_.end(), size_t{0});
  Rng rng(seed_ ^ (kEpochKey + static_cast<uint64_t>(epoch)));
  for (size_t i = order_.size(); i > 1; --i) {
    std::swap(order_[i - 1], order_[rng.Below(i)]);
  }
}

std::vector<size_t> BatchPlan::ExamplesOf(int64_t step) {
  const int64_t epoch = (step - 1) / steps_per_epoch_;
  const int64_t begin = (step - 1) % steps_per_epoch_ * examples_per_step_;
  const int64_t end = std::min(begin + examples_per_step_, num_examples_);
  ShuffleFor(epoch);
  return {order_.begin() + begin, order_.begin() + end};
}

std::vector<TrainBatch> PackBatches(const TrainBatch& sequences,
                                    int64_t max_tokens) {
  std::vector<TrainBatch> batches;
  int64_t tokens = max_tokens;  // of the last batch
  for (const TrainSequence* sequence : sequences) {
    CHECK_LE(sequence->size(), max_tokens);
    if (tokens + sequence->size() > max_tokens) {
      batches.emplace_back();
      tokens = 0;
    }
    batches.back().push_back(sequence);
    tokens += sequence->size();
  }
  return batches;
}

}  // namespace lorikeet
