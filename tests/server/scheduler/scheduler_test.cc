#include "server/scheduler/scheduler.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lorikeet {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

AdapterKey Key(const std::string& name) { return {"default", name, 1, {}}; }

class FakeResidency final : public ResidencyView {
 public:
  bool IsResident(const AdapterKey& key) const override {
    return resident.contains(key.name);
  }
  bool HasRoomFor(std::span<const AdapterKey> keys) const override {
    return has_room || std::ranges::all_of(keys, [this](const AdapterKey& key) {
             return IsResident(key);
           });
  }
  std::set<std::string> resident;
  bool has_room = true;
};

class SchedulerTest : public testing::Test {
 protected:
  static SchedulerOptions Options() {
    SchedulerOptions options;
    options.num_blocks = 32;
    options.block_size = 4;
    options.max_num_seqs = 4;
    options.max_num_batched_tokens = 16;
    options.max_waiting_requests = 100;
    options.max_passes = 3;
    return options;
  }

  void Create(const SchedulerOptions& options) {
    scheduler_ = Scheduler::Create(options);
  }
  // Adds request `id` whose prompt is `id` * 1000 + 0, 1, 2, ...
  SchedulerRequest Make(int64_t id, int64_t prompt_tokens,
                        const std::string& adapter = "") {
    SchedulerRequest r;
    r.id = RequestId(id);
    r.arrival = absl::Seconds(id);
    for (int64_t i = 0; i < prompt_tokens; ++i) {
      r.prompt.push_back(static_cast<Token>(id * 1000 + i));
    }
    r.max_tokens = 8;
    if (!adapter.empty()) r.adapters = {Key(adapter)};
    return r;
  }
  bool Add(SchedulerRequest r) { return scheduler_->Add(std::move(r)); }

  StepPlan Plan() { return scheduler_->Plan(absl::Seconds(1), residency_); }
  // Commits a token for every sequence that samples; the requests in `finished`
  // end with it.
  void Commit(const StepPlan& plan, std::set<int64_t> finished = {}) {
    std::vector<SampledToken> sampled;
    for (const PlannedSequence& s : plan.sequences) {
      if (!s.samples) continue;
      std::vector<SequenceId> ids = {s.sequence};
      if (forking_.erase(s.request.value()) > 0) {
        ids = scheduler_->SequencesOf(s.request);
      }
      for (const SequenceId id : ids) {
        sampled.push_back(
            {id, next_token_++, finished.contains(s.request.value())});
      }
    }
    scheduler_->Commit(sampled);
    scheduler_->CheckInvariants();
  }
  // One step; returns "request:begin-end" of what was planned.
  std::vector<std::string> Step(std::set<int64_t> finished = {}) {
    const StepPlan plan = Plan();
    std::vector<std::string> rows;
    for (const PlannedSequence& s : plan.sequences) {
      rows.push_back(std::to_string(s.request.value()) + ":" +
                     std::to_string(s.begin) + "-" + std::to_string(s.end));
    }
    Commit(plan, finished);
    return rows;
  }

  FakeResidency residency_;
  std::unique_ptr<Scheduler> scheduler_ = Scheduler::Create(Options());
  std::set<int64_t> forking_;  // requests whose next sample forks
  Token next_token_ = 500000;
};

TEST_F(SchedulerTest, PlansDecodesBeforePrefills) {
  Add(Make(1, 3));
  EXPECT_THAT(Step(), ElementsAre("1:0-3"));
  Add(Make(2, 20));
  EXPECT_THAT(Step(), ElementsAre("1:3-4", "2:0-15"));
  EXPECT_THAT(Step(), ElementsAre("1:4-5", "2:15-20"));
}

TEST_F(SchedulerTest, ChunksAPromptToTheTokenBudget) {
  Add(Make(1, 40));
  const StepPlan plan = Plan();
  EXPECT_EQ(plan.num_rows, 16);
  EXPECT_FALSE(plan.sequences[0].samples);
  EXPECT_TRUE(plan.sequences[0].first_step);
  Commit(plan);
  EXPECT_THAT(Step(), ElementsAre("1:16-32"));
  const StepPlan last = Plan();
  EXPECT_TRUE(last.sequences[0].samples);
  EXPECT_FALSE(last.sequences[0].first_step);
  Commit(last);
}

TEST_F(SchedulerTest, AdmitsOldestFirst) {
  Add(Make(2, 10));
  Add(Make(1, 10));
  EXPECT_THAT(Step(), ElementsAre("1:0-10", "2:0-6"));
}

TEST_F(SchedulerTest, AdmitsByPriorityBeforeArrival) {
  Add(Make(1, 10));
  SchedulerRequest urgent = Make(2, 10);
  urgent.priority = -1;
  Add(std::move(urgent));
  EXPECT_THAT(Step(), ElementsAre("2:0-10", "1:0-6"));
}

TEST_F(SchedulerTest, RunsNoMoreThanMaxNumSeqs) {
  for (int i = 1; i <= 6; ++i) Add(Make(i, 2));
  EXPECT_EQ(Step().size(), 4u);
  EXPECT_EQ(scheduler_->load().running, 4);
  EXPECT_EQ(scheduler_->load().waiting, 2);
  Step({1, 2});
  EXPECT_THAT(Step(), ElementsAre("3:3-4", "4:3-4", "5:0-2", "6:0-2"));
}

TEST_F(SchedulerTest, RefusesMoreThanMaxWaitingRequests) {
  SchedulerOptions options = Options();
  options.max_waiting_requests = 2;
  Create(options);
  EXPECT_TRUE(Add(Make(1, 2)));
  EXPECT_TRUE(Add(Make(2, 2)));
  EXPECT_FALSE(Add(Make(3, 2)));
  Step();
  EXPECT_TRUE(Add(Make(4, 2)));
}

TEST_F(SchedulerTest, EndsWhenTheLastTokenIsFinal) {
  Add(Make(1, 2));
  Step({1});
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_EQ(scheduler_->load().blocks_used, 0);
}

TEST_F(SchedulerTest, CancelFreesBlocksAndForgetsTheRequest) {
  Add(Make(1, 20));
  Step();
  scheduler_->Cancel(RequestId(1));
  scheduler_->Cancel(RequestId(7));  // Unknown: ignored.
  scheduler_->CheckInvariants();
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_EQ(scheduler_->load().blocks_used, 0);
}

TEST_F(SchedulerTest, CancelBetweenPlanAndCommitIsHarmless) {
  Add(Make(1, 5));
  Add(Make(2, 5));
  const StepPlan plan = Plan();
  scheduler_->Cancel(RequestId(1));
  Commit(plan);
  EXPECT_THAT(Step(), ElementsAre("2:5-6"));
}

TEST_F(SchedulerTest, ReusesThePrefixOfAnEqualPrompt) {
  Add(Make(1, 11));
  Step({1});
  SchedulerRequest again = Make(2, 0);
  again.prompt = Make(1, 11).prompt;
  Add(std::move(again));
  const StepPlan plan = Plan();
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.sequences[0].begin, 8);
  EXPECT_EQ(plan.sequences[0].cached_tokens, 8);
  Commit(plan);
  EXPECT_EQ(scheduler_->load().cached_tokens, 8);
  EXPECT_EQ(scheduler_->load().prompt_tokens, 22);
}

TEST_F(SchedulerTest, ReusesNothingOfAnotherDomain) {
  Add(Make(1, 11));
  Step({1});
  SchedulerRequest again = Make(2, 0);
  again.prompt = Make(1, 11).prompt;
  again.domains[0].domain.value[0] = 7;
  Add(std::move(again));
  EXPECT_THAT(Step(), ElementsAre("2:0-11"));
}

TEST_F(SchedulerTest, BlocksBeforeADomainBeginsAreThoseOfTheOneBefore) {
  Add(Make(1, 14));
  Step({1});  // blocks of 0-4, 4-8, 8-12
  const auto with_start = [&](int64_t id, int32_t from) {
    SchedulerRequest r = Make(id, 0);
    r.prompt = Make(1, 14).prompt;
    KvDomain other;
    other.value[0] = 7;
    other.value[1] = static_cast<uint64_t>(from);
    r.domains.push_back({from, other});
    return r;
  };
  Add(with_start(2, 8));
  EXPECT_THAT(Step({2}), ElementsAre("2:8-14"));
  // A block that a domain begins within is of the new one.
  Add(with_start(3, 7));
  EXPECT_THAT(Step({3}), ElementsAre("3:4-14"));
  Add(with_start(4, 8));
  EXPECT_THAT(Step({4}), ElementsAre("4:12-14"));
}

TEST_F(SchedulerTest, AdmitsACompositionWhenAllOfItsAdaptersAreThere) {
  SchedulerRequest r = Make(1, 3, "a");
  r.adapters.push_back(Key("b"));
  Add(std::move(r));
  Add(Make(2, 3, "b"));
  residency_.resident = {"a"};
  StepPlan plan = Plan();
  EXPECT_THAT(plan.sequences, IsEmpty());
  EXPECT_THAT(plan.promote, ElementsAre(Key("a"), Key("b")));
  Commit(plan);
  residency_.resident = {"a", "b"};
  EXPECT_THAT(Step(), ElementsAre("1:0-3", "2:0-3"));
  EXPECT_THAT(scheduler_->AdaptersInUse(), ElementsAre(Key("a"), Key("b")));
  scheduler_->Cancel(RequestId(1));
  EXPECT_THAT(scheduler_->AdaptersInUse(), ElementsAre(Key("b")));
  scheduler_->CheckInvariants();
}

TEST_F(SchedulerTest, FlushForgetsWhatNobodyUses) {
  Add(Make(1, 11));
  Step({1});
  EXPECT_EQ(scheduler_->load().blocks_cached, 2);
  EXPECT_EQ(scheduler_->FlushPrefixCache(), 2);
  EXPECT_EQ(scheduler_->load().blocks_cached, 0);
}

TEST_F(SchedulerTest, ForksCandidatesAfterOnePrefill) {
  SchedulerRequest r = Make(1, 6);
  r.num_candidates = 3;
  Add(std::move(r));
  forking_ = {1};
  EXPECT_THAT(Step(), ElementsAre("1:0-6"));
  const StepPlan plan = Plan();
  ASSERT_EQ(plan.sequences.size(), 3u);
  // The full block is shared, the last one is copied for all but one.
  EXPECT_EQ(plan.block_copies.size(), 2u);
  std::set<int32_t> first, second;
  for (const PlannedSequence& s : plan.sequences) {
    first.insert(s.block_table[0]);
    second.insert(s.block_table[1]);
  }
  EXPECT_EQ(first.size(), 1u);
  EXPECT_EQ(second.size(), 3u);
  Commit(plan);
}

TEST_F(SchedulerTest, ARequestTakesThePlacesOfAllItsCandidates) {
  SchedulerRequest r = Make(1, 6);
  r.num_candidates = 3;
  Add(std::move(r));
  Add(Make(2, 2));
  Add(Make(3, 2));
  forking_ = {1};
  EXPECT_THAT(Step(), ElementsAre("1:0-6", "2:0-2"));
}

TEST_F(SchedulerTest, EndsOneCandidateAndGoesOnWithTheOthers) {
  SchedulerRequest r = Make(1, 6);
  r.num_candidates = 2;
  Add(std::move(r));
  forking_ = {1};
  scheduler_->FinishCandidate(RequestId(1), 0);
  Step();
  const StepPlan plan = Plan();
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.sequences[0].candidate, 1);
  Commit(plan);
  scheduler_->FinishCandidate(RequestId(1), 1);
  EXPECT_TRUE(scheduler_->idle());
}

TEST_F(SchedulerTest, PreemptsTheYoungestWhenBlocksRunOut) {
  SchedulerOptions options = Options();
  options.num_blocks = 4;
  options.prefix_caching = false;
  Create(options);
  Add(Make(1, 4));
  Add(Make(2, 4));
  Step();
  Step();  // Both need a second block now.
  for (int i = 0; i < 3; ++i) Step();
  // Request 1 needs its third block.
  const StepPlan plan = Plan();
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.sequences[0].request, RequestId(1));
  EXPECT_EQ(plan.preempted.size(), 1u);
  Commit(plan);
  EXPECT_EQ(scheduler_->load().preemptions, 1);
  Step({1});
  // Prompt and the five tokens of output so far are computed again.
  EXPECT_THAT(Step(), ElementsAre("2:0-9"));
}

TEST_F(SchedulerTest, ThePausedGiveTheirBlocksFirst) {
  SchedulerOptions options = Options();
  options.num_blocks = 4;
  options.prefix_caching = false;
  Create(options);
  Add(Make(1, 4));
  Add(Make(2, 4));
  Step();
  scheduler_->SetPaused(RequestId(1), true);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(Step().size(), 1u) << i;
  EXPECT_EQ(scheduler_->load().preemptions, 0);
  // The younger request needs its fourth block.
  EXPECT_THAT(Step(), ElementsAre("2:12-13"));
  EXPECT_EQ(scheduler_->load().preemptions, 1);
  scheduler_->SetPaused(RequestId(1), false);
  Step({2});
  EXPECT_THAT(Step(), ElementsAre("1:0-5"));
}

TEST_F(SchedulerTest, AsksForColdAdaptersInTheOrderOfNeed) {
  Add(Make(1, 2, "a"));
  Add(Make(2, 2, "b"));
  Add(Make(3, 2, "a"));
  Add(Make(4, 2));
  const StepPlan plan = Plan();
  EXPECT_THAT(plan.promote, ElementsAre(Key("a"), Key("b")));
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.sequences[0].request, RequestId(4));
  Commit(plan);
  residency_.resident = {"a", "b"};
  EXPECT_EQ(Step().size(), 4u);
  EXPECT_THAT(scheduler_->AdaptersInUse(), ElementsAre(Key("a"), Key("b")));
}

TEST_F(SchedulerTest, ReservesTheNextSlotForWhomWasPassedTooOften) {
  residency_.resident = {"b", "c"};
  Add(Make(1, 2, "cold"));
  for (int i = 2; i <= 4; ++i) {
    Add(Make(i, 2, "b"));
    EXPECT_EQ(Step().size(), i - 1u);
  }
  Step({2, 3, 4});
  // Passed three times: "b" and "c" run no more and may not come back.
  Add(Make(5, 2, "b"));
  Add(Make(6, 2, "c"));
  Add(Make(7, 2));
  EXPECT_THAT(Step(), ElementsAre("7:0-2"));
  residency_.resident.insert("cold");
  EXPECT_THAT(Step(), ElementsAre("7:2-3", "1:0-2", "5:0-2", "6:0-2"));
}

TEST_F(SchedulerTest, EmptiesASlotForWhomWasPassedTooOften) {
  residency_.resident = {"b"};
  residency_.has_room = false;
  Add(Make(1, 2, "cold"));
  for (int i = 2; i <= 4; ++i) {
    Add(Make(i, 2, "b"));
    Step();
  }
  Step({2, 3});
  // "b" still runs, but nobody may prolong its use.
  Add(Make(5, 2, "b"));
  EXPECT_THAT(Step({4}), ElementsAre("4:3-4"));
  EXPECT_THAT(scheduler_->AdaptersInUse(), IsEmpty());
  residency_.resident = {"cold"};
  EXPECT_THAT(Step(), ElementsAre("1:0-2"));
}

TEST_F(SchedulerTest, AFailedStepEndsItsRequests) {
  Add(Make(1, 2));
  Add(Make(2, 2));
  scheduler_->SetPaused(RequestId(2), true);
  Plan();
  EXPECT_THAT(scheduler_->AbortStep(), ElementsAre(RequestId(1)));
  scheduler_->CheckInvariants();
  scheduler_->SetPaused(RequestId(2), false);
  EXPECT_THAT(Step(), ElementsAre("2:0-2"));
}

TEST_F(SchedulerTest, BoundsTheRowsOfPromptLogprobs) {
  SchedulerOptions options = Options();
  options.max_all_logits_rows = 5;
  Create(options);
  SchedulerRequest r = Make(1, 12);
  r.all_prompt_logits = true;
  Add(std::move(r));
  EXPECT_THAT(Step(), ElementsAre("1:0-5"));
  const StepPlan plan = Plan();
  EXPECT_TRUE(plan.sequences[0].all_logits);
  Commit(plan);
  EXPECT_THAT(Step(), ElementsAre("1:10-12"));
  const StepPlan decode = Plan();
  EXPECT_FALSE(decode.sequences[0].all_logits);
  Commit(decode);
}

}  // namespace
}  // namespace lorikeet
