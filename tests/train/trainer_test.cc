#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/train_fixture.h"
#include "train/batch_plan.h"
#include "train/dataset.h"

namespace lorikeet::testing {
namespace {

using ::testing::HasSubstr;

class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    DatasetOptions reading;
    reading.tokenizer = machine_.tokenizer.get();
    reading.end_token = machine_.base->eos_tokens().front();
    reading.vocab_size = machine_.base->config().vocab_size;
    reading.max_tokens = 64;
    data_ = std::make_unique<Dataset>(
        Dataset::Parse(CapitalLines(8), "lines", reading).value());
    for (const TrainSequence& s : data_->sequences()) all_.push_back(&s);
    options_.schedule.steps = 5;
    options_.schedule.peak = 1e-2;
    options_.passes.max_tokens = 512;
    options_.passes.tape_bytes = 1 << 28;
  }

  std::unique_ptr<TrainModel> MakeModel() {
    PeftConfig peft;
    peft.r = 4;
    peft.lora_alpha = 8;
    peft.target_modules = ModuleChoice{"all-linear", {}};
    return TrainModel::Lora(*machine_.base, peft, 1, *machine_.ops,
                            *machine_.train, stream_)
        .value();
  }
  absl::Status RunStep(Trainer& trainer, std::vector<TrainBatch> batches) {
    trainer.BeginStep(std::move(batches));
    for (;;) {
      const absl::StatusOr<bool> done = trainer.RunSlice();
      if (!done.ok()) return done.status();
      if (*done) return absl::OkStatus();
    }
  }

  TrainMachine machine_;
  HostStream stream_;
  std::unique_ptr<Dataset> data_;
  TrainBatch all_;
  TrainerOptions options_;
};

TEST_F(TrainerTest, HowAStepIsCutIntoBatchesIsAMatterOfRounding) {
  const auto whole_model = MakeModel();
  const auto cut_model = MakeModel();
  Trainer whole(*whole_model, *machine_.train, *machine_.ops, stream_,
                options_);
  Trainer cut(*cut_model, *machine_.train, *machine_.ops, stream_, options_);
  ASSERT_TRUE(RunStep(whole, {all_}).ok());
  ASSERT_TRUE(RunStep(cut, PackBatches(all_, 40)).ok());
  EXPECT_NEAR(cut.report().loss, whole.report().loss,
              1e-6 * whole.report().loss);
  EXPECT_NEAR(cut.report().gradient_norm, whole.report().gradient_norm,
              1e-5 * whole.report().gradient_norm);
  EXPECT_EQ(cut.report().targets, whole.report().targets);
}

TEST_F(TrainerTest, ASliceIsAPartOfAStep) {
  const auto model = MakeModel();
  Trainer trainer(*model, *machine_.train, *machine_.ops, stream_, options_);
  trainer.BeginStep({all_});
  int slices = 0;
  double before = 0;
  for (bool done = false; !done; ++slices) {
    done = trainer.RunSlice().value();
    // Four layers, two directions: none of the slices is more than 0.3 of it.
    EXPECT_LE(trainer.progress() - before, 0.3);
    before = trainer.progress();
  }
  EXPECT_EQ(trainer.progress(), 1);
  EXPECT_EQ(slices, 1 + 4 * 3 + 2 + 4 * 4 + 1);
}

TEST_F(TrainerTest, ALossThatIsNoNumberNamesItsBatchAndChangesNothing) {
  const auto model = MakeModel();
  Trainer trainer(*model, *machine_.train, *machine_.ops, stream_, options_);
  model->parameters().values()[5] = std::nanf("");
  const std::vector<float> before(model->parameters().values().begin(),
                                  model->parameters().values().end());
  const absl::Status status = RunStep(trainer, {{all_[2], all_[5]}, {all_[0]}});
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("loss of step 1 is nan in the batch of lines 3, 6;"));
  EXPECT_EQ(trainer.steps_done(), 0);
  for (size_t i = 6; i < before.size(); ++i) {
    ASSERT_EQ(model->parameters().values()[i], before[i]);
  }
}

TEST_F(TrainerTest, EvaluationCountsSequencesThatAreRightAsAWhole) {
  const auto model = MakeModel();
  options_.schedule.steps = 60;
  Trainer trainer(*model, *machine_.train, *machine_.ops, stream_, options_);
  const EvalReport before = trainer.Evaluate(all_).value();
  EXPECT_EQ(before.exact, 0);
  EXPECT_EQ(before.sequences, 8);
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(RunStep(trainer, {all_}).ok());
  const EvalReport after = trainer.Evaluate(all_).value();
  EXPECT_EQ(after.exact, 8);
  EXPECT_LT(after.loss(), before.loss() / 10);
}

TEST_F(TrainerTest, AnEvaluationIsSlicesOfLessThanALayer) {
  const auto model = MakeModel();
  Trainer trainer(*model, *machine_.train, *machine_.ops, stream_, options_);
  const EvalReport whole = trainer.Evaluate(all_).value();
  trainer.BeginEvaluation(all_);
  int64_t slices = 1;
  while (!trainer.RunEvaluationSlice().value()) ++slices;
  EXPECT_GT(slices, 2 * model->config().num_layers);
  EXPECT_EQ(trainer.evaluation().loss_sum, whole.loss_sum);
  EXPECT_EQ(trainer.evaluation().exact, whole.exact);
}

TEST_F(TrainerTest, SequencesOfABatchDoNotSeeEachOther) {
  const auto model = MakeModel();
  Trainer trainer(*model, *machine_.train, *machine_.ops, stream_, options_);
  double alone = 0;
  for (const TrainSequence* s : all_) {
    alone += trainer.Evaluate({s}).value().loss_sum;
  }
  const double together = trainer.Evaluate(all_).value().loss_sum;
  EXPECT_NEAR(together, alone, 1e-9 * alone);
}

}  // namespace
}  // namespace lorikeet::testing
