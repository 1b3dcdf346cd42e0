#include "train/batch_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace lorikeet {
namespace {

std::vector<size_t> Epoch(BatchPlan& plan, int64_t epoch) {
  std::vector<size_t> all;
  for (int64_t i = 1; i <= plan.steps_per_epoch(); ++i) {
    const auto step = plan.ExamplesOf(epoch * plan.steps_per_epoch() + i);
    all.insert(all.end(), step.begin(), step.end());
  }
  return all;
}

TEST(BatchPlanTest, AnEpochHasEveryExampleOnce) {
  BatchPlan plan(23, 5, 1);
  EXPECT_EQ(plan.steps_per_epoch(), 5);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<size_t> all = Epoch(plan, epoch);
    std::ranges::sort(all);
    ASSERT_EQ(all.size(), 23u);
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], i);
  }
}

TEST(BatchPlanTest, EpochsAndSeedsHaveOrdersOfTheirOwn) {
  BatchPlan plan(50, 5, 1), other(50, 5, 2);
  EXPECT_NE(Epoch(plan, 0), Epoch(plan, 1));
  EXPECT_NE(Epoch(plan, 0), Epoch(other, 0));
}

TEST(BatchPlanTest, AStepDependsOnItsNumberAlone) {
  BatchPlan forward(23, 4, 9), backward(23, 4, 9);
  std::vector<std::vector<size_t>> steps;
  for (int64_t t = 1; t <= 20; ++t) steps.push_back(forward.ExamplesOf(t));
  for (int64_t t = 20; t >= 1; --t) {
    EXPECT_EQ(backward.ExamplesOf(t), steps[static_cast<size_t>(t - 1)]);
  }
}

TEST(PackBatchesTest, KeepsTheOrderAndTheBudget) {
  std::vector<TrainSequence> sequences;
  for (const size_t n : {3u, 4u, 2u, 8u, 1u, 1u}) {
    sequences.push_back({std::vector<Token>(n), std::vector<bool>(n), 0});
  }
  TrainBatch all;
  for (const TrainSequence& s : sequences) all.push_back(&s);
  const std::vector<TrainBatch> batches = PackBatches(all, 8);
  ASSERT_EQ(batches.size(), 4u);
  EXPECT_EQ(batches[0].size(), 2u);
  EXPECT_EQ(batches[1].size(), 1u);
  EXPECT_EQ(batches[2].size(), 1u);
  EXPECT_EQ(batches[3].size(), 2u);
  EXPECT_EQ(batches[2][0], &sequences[3]);
}

}  // namespace
}  // namespace lorikeet
