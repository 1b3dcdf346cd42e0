#include "server/training/training_share.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/random.h"

namespace lorikeet {
namespace {

constexpr absl::Duration kStep = absl::Milliseconds(6);

// Serves for `time` with slices of about `slice`.
struct Simulated {
  absl::Duration serving, training, longest_gap;
  int most_in_a_row = 0;

  double share() const {
    return absl::FDivDuration(training, serving + training);
  }
};

Simulated Simulate(double share, absl::Duration slice, absl::Duration time) {
  TrainingShare policy(share);
  Rng rng(7);
  Simulated run;
  int row = 0;
  while (run.serving + run.training < time) {
    run.serving += kStep;
    policy.AddServing(kStep);
    if (!policy.MayTrain()) {
      row = 0;
      continue;
    }
    const absl::Duration took = slice * (0.5 + rng.Uniform());
    policy.AddTraining(took);
    run.training += took;
    run.longest_gap = std::max(run.longest_gap, took);
    run.most_in_a_row = std::max(run.most_in_a_row, ++row);
  }
  return run;
}

TEST(TrainingShareTest, TrainingGetsItsShareAndNoMore) {
  for (const double share : {0.05, 0.2, 0.5}) {
    for (const absl::Duration slice :
         {absl::Milliseconds(1), absl::Milliseconds(6),
          absl::Milliseconds(40)}) {
      const Simulated run = Simulate(share, slice, absl::Seconds(60));
      // Short slices have one chance a step.
      const double possible = absl::FDivDuration(slice, slice + kStep);
      EXPECT_NEAR(run.share(), std::min(share, possible), 0.02)
          << share << " " << slice;
    }
  }
}

TEST(TrainingShareTest, LongSlicesLieFarApart) {
  const Simulated run =
      Simulate(0.2, absl::Milliseconds(40), absl::Seconds(60));
  EXPECT_LE(run.most_in_a_row, 1);
}

TEST(TrainingShareTest, WhatIsSavedWhileThereIsNoJobIsBounded) {
  TrainingShare policy(0.2);
  policy.AddTraining(absl::Milliseconds(1));
  for (int i = 0; i < 100000; ++i) policy.AddServing(kStep);
  int slices = 0;
  while (policy.MayTrain()) {
    policy.AddTraining(absl::Milliseconds(1));
    ++slices;
  }
  EXPECT_LE(slices, 3);
}

TEST(TrainingShareTest, IdleTimeIsNobodys) {
  TrainingShare policy(0.2);
  for (int i = 0; i < 1000; ++i) policy.AddIdle(absl::Milliseconds(2));
  // Known to take 2 ms, of which 8 ms of serving earn 2 ms.
  policy.AddServing(absl::Milliseconds(7));
  EXPECT_FALSE(policy.MayTrain());
  policy.AddServing(absl::Milliseconds(2));
  EXPECT_TRUE(policy.MayTrain());
}

}  // namespace
}  // namespace lorikeet
