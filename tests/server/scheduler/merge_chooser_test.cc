// The rule that chooses variants, and a simulation of shifting loads.

#include "server/scheduler/merge_chooser.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"

namespace lorikeet {
namespace {

// A machine that reads weights in 10 ms, computes a row in 1 ms, and adds 6 %
// for an adapter of a million bytes with 8 rows.
StepCosts Costs() {
  StepCosts costs;
  for (const int64_t rows : {1, 2, 4, 8, 16, 32, 64}) {
    costs.passes.push_back(
        {rows, std::max(10.0, static_cast<double>(rows)) * 1e-3});
  }
  costs.lora_per_byte = 2e-10;
  costs.lora_per_byte_and_row = 5e-11;
  costs.merge = 0.05;
  return costs;
}
constexpr int64_t kBytes = 1'000'000;

AdapterKey Key(int i) {
  const std::string name = absl::StrCat("a", i);
  return {"default", name, 1, DigestOf(name)};
}

TEST(ChooseMergeTest, AHotAdapterAloneIsMerged) {
  const MergeChoice c =
      ChooseMerge(Costs(), {8, 0, kBytes}, false, false, MergeChooser::kMargin);
  EXPECT_TRUE(c.merge);
  EXPECT_EQ(c.reason, MergeReason::kCheaper);
  EXPECT_NEAR(c.merged_seconds, 0.010, 1e-9);
  EXPECT_NEAR(c.unmerged_seconds, 0.0106, 1e-9);
}

TEST(ChooseMergeTest, AmongOthersASecondPassCostsMoreThanItSaves) {
  for (const bool was_merged : {false, true}) {
    const MergeChoice c = ChooseMerge(Costs(), {4, 4, kBytes}, was_merged,
                                      was_merged, MergeChooser::kMargin);
    EXPECT_FALSE(c.merge);
    EXPECT_EQ(c.reason, MergeReason::kDearer);
  }
}

TEST(ChooseMergeTest, LargeBatchesComputeAndAreMergedBesideOthers) {
  StepCosts costs = Costs();
  costs.lora_per_byte_and_row = 2e-10;
  const MergeChoice c =
      ChooseMerge(costs, {32, 32, kBytes}, false, true, MergeChooser::kMargin);
  EXPECT_TRUE(c.merge) << c.unmerged_seconds << " " << c.merged_seconds;
}

TEST(ChooseMergeTest, WithinTheMarginItStaysAsItWas) {
  for (const bool was_merged : {false, true}) {
    const MergeChoice c = ChooseMerge(Costs(), {8, 0.06, kBytes}, was_merged,
                                      true, MergeChooser::kMargin);
    EXPECT_EQ(c.merge, was_merged);
    EXPECT_EQ(c.reason, MergeReason::kNoGain);
  }
}

TEST(ChooseMergeTest, WhatDoesNotEarnItsMakingIsNotMade) {
  StepCosts costs = Costs();
  costs.merge = 1;
  EXPECT_EQ(
      ChooseMerge(costs, {8, 0, kBytes}, false, false, MergeChooser::kMargin)
          .reason,
      MergeReason::kTooShort);
  EXPECT_TRUE(
      ChooseMerge(costs, {8, 0, kBytes}, false, true, MergeChooser::kMargin)
          .merge);
}

TEST(ChooseMergeTest, WithoutCostsOrLoadNothingIsMerged) {
  EXPECT_EQ(ChooseMerge(StepCosts(), {8, 0, kBytes}, true, true,
                        MergeChooser::kMargin)
                .reason,
            MergeReason::kNotMeasured);
  const MergeChoice c =
      ChooseMerge(Costs(), {}, false, false, MergeChooser::kMargin);
  EXPECT_FALSE(c.merge);
  EXPECT_EQ(c.reason, MergeReason::kIdle);
}

// Steps of 8 rows: of one adapter in hot times, of 8 adapters in others.
class Simulation {
 public:
  explicit Simulation(uint64_t seed) : rng_(seed) {
    chooser_.SetCosts(Costs());
    for (int i = 0; i < 8; ++i) keys_.push_back(Key(i));
  }

  // Runs for `time`; returns what steps cost as chosen, and as either fixed
  // mode would have cost.
  struct Times {
    double chosen = 0, never = 0, always = 0;
    int switches = 0;
  };
  void Run(double share_of_hot, absl::Duration time, Times* times) {
    const absl::Duration end = now_ + time;
    while (now_ < end) {
      std::vector<int64_t> rows(keys_.size());
      for (int i = 0; i < 8; ++i) {
        ++rows[rng_.Uniform() < share_of_hot ? 0 : rng_.Below(keys_.size())];
      }
      // Admitted as the choice of now says; requests are a step long here.
      std::vector<bool> merged(keys_.size());
      for (size_t i = 0; i < keys_.size(); ++i) {
        if (rows[i] == 0) continue;
        merged[i] = chooser_.Choose(keys_[i], kBytes, made_ == keys_[i]).merge;
        if (merged[i]) made_ = keys_[i];
      }
      if (merged[0] != was_merged_) ++times->switches;
      was_merged_ = merged[0];
      const double cost = Cost(rows, merged);
      times->chosen += cost;
      times->never += Cost(rows, std::vector<bool>(keys_.size(), false));
      times->always += Cost(rows, std::vector<bool>(keys_.size(), true));
      now_ += absl::Seconds(cost);
      std::vector<MergeChooser::Rows> seen;
      for (size_t i = 0; i < keys_.size(); ++i) {
        if (rows[i] > 0) seen.emplace_back(&keys_[i], rows[i]);
      }
      chooser_.Observe(now_, seen, 0);
    }
  }

 private:
  static double Cost(const std::vector<int64_t>& rows,
                     const std::vector<bool>& merged) {
    const StepCosts costs = Costs();
    double seconds = 0, base_rows = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      const double r = static_cast<double>(rows[i]);
      if (merged[i]) {
        seconds += costs.Linears(r);
      } else {
        base_rows += r;
        seconds += costs.Lora(kBytes, r);
      }
    }
    return seconds + costs.Linears(base_rows);
  }

  Rng rng_;
  MergeChooser chooser_;
  std::vector<AdapterKey> keys_;
  AdapterKey made_;
  absl::Duration now_ = absl::Seconds(100);
  bool was_merged_ = false;
};

TEST(MergeChooserTest, FollowsAShiftingLoadAsWellAsTheBetterFixedMode) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    Simulation simulation(seed);
    Simulation::Times uniform, hot, again;
    simulation.Run(0, absl::Seconds(20), &uniform);
    simulation.Run(1, absl::Seconds(20), &hot);
    simulation.Run(0, absl::Seconds(20), &again);
    EXPECT_EQ(uniform.switches, 0);
    EXPECT_EQ(hot.switches, 1);
    EXPECT_EQ(again.switches, 1);
    EXPECT_LT(hot.chosen, 0.98 * hot.never);  // it is merged, and that pays
    const double chosen = uniform.chosen + hot.chosen + again.chosen;
    const double never = uniform.never + hot.never + again.never;
    const double always = uniform.always + hot.always + again.always;
    EXPECT_LT(chosen, std::min(never, always) / 0.98);
  }
}

TEST(MergeChooserTest, DoesNotFlapWhereBothModesCostTheSame) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    Simulation simulation(seed);
    Simulation::Times times;
    simulation.Run(0.995, absl::Seconds(60), &times);
    EXPECT_LE(times.switches, 6);
  }
}

TEST(MergeChooserTest, IsAFunctionOfWhatItSaw) {
  const auto run = [] {
    Simulation simulation(3);
    Simulation::Times times;
    simulation.Run(0.9, absl::Seconds(10), &times);
    return times.chosen;
  };
  EXPECT_EQ(run(), run());
}

TEST(MergeChooserTest, ExplainsWhatItSees) {
  MergeChooser chooser;
  chooser.SetCosts(Costs());
  const AdapterKey hot = Key(0);
  const MergeChooser::Rows rows[] = {{&hot, 8}};
  chooser.Observe(absl::Seconds(100), rows, 0);
  EXPECT_TRUE(chooser.Choose(hot, kBytes, false).merge);
  const auto known = chooser.Explain();
  ASSERT_EQ(known.size(), 1u);
  EXPECT_EQ(known.at(hot).choice.reason, MergeReason::kCheaper);
  EXPECT_NEAR(known.at(hot).load.rows, 8, 0.01);
  EXPECT_EQ(known.at(hot).load.others, 0);
  // Forgotten when nothing of it runs any more.
  chooser.Observe(absl::Seconds(200), {}, 8);
  EXPECT_TRUE(chooser.Explain().empty());
}

}  // namespace
}  // namespace lorikeet
