// Jobs on the engine's thread: the adapter has the bits of `lorikeet train`,
// whatever is served meanwhile and whenever the server was stopped; requests
// have the bits that they have without a job.

#include "server/training/job_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/reason.h"
#include "model/kv_pool.h"
#include "tests/server/engine/fake_adapter_store.h"
#include "tests/server/engine/stream_reader.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/golden.h"
#include "tests/train/train_fixture.h"

namespace lorikeet::testing {
namespace {

constexpr absl::Duration kLongest = absl::Seconds(60);

// Finds the engine's thread.
struct ThreadFinder final : GapWork {
  void AfterStep(absl::Duration) override {}
  bool WhileIdle() override {
    if (!std::exchange(is_found, true)) {
      thread.set_value(std::this_thread::get_id());
    }
    return false;
  }
  bool is_found = false;
  std::promise<std::thread::id> thread;
};

class JobRunnerTest : public ::testing::Test {
 protected:
  JobRunnerTest() : dir_(FreshTempDir("job_runner")) {
    SetLogLevel(LogLevel::kError);
    EngineOptions options;
    options.kv_cache_bytes =
        64 * KvPool::BlockBytes(machine_.base->config(), DType::kF32);
    options.max_num_seqs = 8;
    options.max_num_batched_tokens = 64;
    engine_ = Engine::Create(*machine_.base, nullptr, *machine_.ops, adapters_,
                             clock_, options)
                  .value();
    options_.dir = dir_ + "/jobs";
    options_.checkpoint_steps = 2;
    options_.eval_steps = 4;
    Start();
  }
  ~JobRunnerTest() override {
    runner_.reset();
    SetLogLevel(LogLevel::kInfo);
  }

  // As after a restart of the process.
  void Start() {
    runner_.reset();
    auto runner = JobRunner::Start(
        machine_.subject(&fs_), *engine_, clock_, options_,
        [this](const JobRecord& job,
               const std::string& dir) -> absl::StatusOr<uint32_t> {
          if (!publish_error_.ok()) return publish_error_;
          published_.push_back(
              machine_.fs.ReadFile(dir + "/adapter_model.safetensors", 1 << 30)
                  .value());
          names_.push_back(job.adapter);
          return static_cast<uint32_t>(published_.size());
        });
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
  }

  JobRecord NewRecord(const std::string& adapter) const {
    JobRecord record;
    record.tenant = "default";
    record.adapter = adapter;
    record.options = SmallOptions();
    return record;
  }
  std::string Add(const std::string& adapter) {
    const auto added =
        runner_->Add(NewRecord(adapter), CapitalLines(20), CapitalLines(4));
    EXPECT_TRUE(added.ok()) << added.status();
    return added.ok() ? added->id : "";
  }
  JobRecord WaitForEnd(const std::string& id) {
    const absl::Duration end = clock_.Now() + kLongest;
    while (clock_.Now() < end) {
      const auto record = runner_->Get(id);
      if (record.ok() && IsFinal(record->state)) return *record;
      absl::SleepFor(absl::Milliseconds(1));
    }
    ADD_FAILURE() << id << " does not end";
    return JobRecord();
  }
  void WaitForSteps(const std::string& id, int64_t steps) {
    const absl::Duration end = clock_.Now() + kLongest;
    while (clock_.Now() < end && runner_->Get(id)->steps_done < steps) {
      absl::SleepFor(absl::Milliseconds(1));
    }
  }
  // What `lorikeet train` writes.
  std::string TrainAlone() {
    EXPECT_TRUE(
        WriteFileDurably(machine_.fs, dir_ + "/t.jsonl", CapitalLines(20))
            .ok());
    TrainMachine other(1);
    TrainingFiles files;
    files.data = dir_ + "/t.jsonl";
    files.output = dir_ + "/alone";
    auto job = TrainingJob::Create(other.subject(), files, SmallOptions());
    EXPECT_TRUE(job.ok()) << job.status();
    EXPECT_TRUE(RunToEnd(**job).ok());
    return machine_.fs
        .ReadFile(files.output + "/adapter_model.safetensors", 1 << 30)
        .value();
  }
  std::vector<Token> Serve(int seed) {
    EngineRequest request;
    for (int i = 0; i < 20; ++i) {
      request.prompt.push_back(static_cast<Token>(5 + (seed * 7 + i) % 60));
    }
    request.stop.max_tokens = 30;
    request.output.text = false;
    return ReadAll(engine_->Submit(request).value()).tokens[0];
  }

  TrainMachine machine_;
  FaultFileSystem fs_{machine_.fs};
  const std::string dir_;
  SystemClock clock_;
  FakeAdapterStore adapters_;
  std::unique_ptr<Engine> engine_;
  JobRunner::Options options_;
  absl::Status publish_error_;
  std::vector<std::string> published_, names_;
  std::unique_ptr<JobRunner> runner_;
};

TEST_F(JobRunnerTest, AJobMakesTheAdapterOfTrainingAlone) {
  const JobRecord record = WaitForEnd(Add("a"));
  EXPECT_EQ(record.state, JobState::kSucceeded) << record.error;
  EXPECT_EQ(record.version, 1u);
  EXPECT_EQ(record.steps_done, 6);
  EXPECT_EQ(record.num_steps, 6);
  EXPECT_EQ(record.examples, 20);
  EXPECT_GT(record.loss, 0);
  EXPECT_TRUE(record.eval_exact_match.has_value());
  ASSERT_EQ(published_.size(), 1u);
  EXPECT_EQ(published_[0], TrainAlone());
}

TEST_F(JobRunnerTest, BesideServingBothHaveTheirBits) {
  std::vector<std::vector<Token>> alone;
  for (int i = 0; i < 12; ++i) alone.push_back(Serve(i));
  engine_->FlushPrefixCache();
  const std::string id = Add("a");
  int served = 0;
  do {
    EXPECT_EQ(Serve(served % 12), alone[static_cast<size_t>(served % 12)]);
  } while (++served < 12 || !IsFinal(runner_->Get(id)->state));
  EXPECT_EQ(WaitForEnd(id).state, JobState::kSucceeded);
  ASSERT_EQ(published_.size(), 1u);
  EXPECT_EQ(published_[0], TrainAlone());
}

TEST_F(JobRunnerTest, AJobGoesOnAfterARestartToTheSameBits) {
  const std::string id = Add("a");
  for (int64_t steps = 1; steps < 6; steps += 2) {
    WaitForSteps(id, steps);
    Start();
  }
  EXPECT_EQ(WaitForEnd(id).state, JobState::kSucceeded);
  ASSERT_EQ(published_.size(), 1u);
  EXPECT_EQ(published_[0], TrainAlone());
  Start();
  EXPECT_EQ(runner_->Get(id)->version, 1u);
  EXPECT_EQ(published_.size(), 1u);  // ended once
}

TEST_F(JobRunnerTest, CheckpointsAndOutputAreNotWrittenOnTheEnginesThread) {
  std::mutex mu;
  std::set<std::thread::id> writers;
  int64_t checkpoints = 0, outputs = 0;
  runner_.reset();
  fs_.Observe([&](const std::string& path) {
    const std::lock_guard<std::mutex> lock(mu);
    const bool is_checkpoint = absl::StrContains(path, "/step-");
    const bool is_output = absl::StrContains(path, ".partial/");
    checkpoints += is_checkpoint ? 1 : 0;
    outputs += is_output ? 1 : 0;
    if (is_checkpoint || is_output) writers.insert(std::this_thread::get_id());
  });
  ThreadFinder finder;
  engine_->SetGapWork(&finder);
  engine_->Wake();
  const std::thread::id engine_thread = finder.thread.get_future().get();
  Start();
  EXPECT_EQ(WaitForEnd(Add("a")).state, JobState::kSucceeded);
  runner_.reset();
  EXPECT_GT(checkpoints, 2);
  EXPECT_GT(outputs, 2);
  EXPECT_FALSE(writers.contains(engine_thread));
}

TEST_F(JobRunnerTest, ADiskThatIsFullFailsTheJobAndTheNextOneRuns) {
  runner_.reset();
  fs_.Observe([&](const std::string& path) {
    if (absl::StrContains(path, "job-1/") && absl::StrContains(path, "/step-4"))
      fs_.Arm(FaultFileSystem::Fault::kFailOnce, 0);
  });
  Start();
  const JobRecord record = WaitForEnd(Add("a"));
  EXPECT_EQ(record.state, JobState::kFailed);
  EXPECT_EQ(record.error.code(), absl::StatusCode::kResourceExhausted)
      << record.error;
  EXPECT_EQ(WaitForEnd(Add("b")).state, JobState::kSucceeded);
}

TEST_F(JobRunnerTest, JobsRunInTheirOrder) {
  std::vector<std::string> ids;
  for (const char* const name : {"a", "b", "c"}) ids.push_back(Add(name));
  for (const std::string& id : ids) {
    EXPECT_EQ(WaitForEnd(id).state, JobState::kSucceeded);
  }
  EXPECT_THAT(names_, ::testing::ElementsAre("a", "b", "c"));
  EXPECT_EQ(runner_->List().size(), 3u);
}

TEST_F(JobRunnerTest, ACancelledJobEndsAndTheNextOneRuns) {
  JobRecord record = NewRecord("long");
  record.options.steps = 1000000;
  const auto added = runner_->Add(record, CapitalLines(20), "");
  ASSERT_TRUE(added.ok());
  const std::string next = Add("next");
  WaitForSteps(added->id, 1);
  ASSERT_TRUE(runner_->Cancel(added->id).ok());
  EXPECT_EQ(WaitForEnd(added->id).state, JobState::kCancelled);
  EXPECT_EQ(WaitForEnd(next).state, JobState::kSucceeded);
  EXPECT_EQ(ReasonOf(runner_->Cancel(next).status()), "JOB_ENDED");
  EXPECT_EQ(ReasonOf(runner_->Cancel("job-99").status()), "JOB_NOT_FOUND");
}

TEST_F(JobRunnerTest, WhatCannotBeRegisteredFailsTheJobWithTheError) {
  publish_error_ = absl::InvalidArgumentError("golden prompt 3 is wrong");
  const JobRecord record = WaitForEnd(Add("a"));
  EXPECT_EQ(record.state, JobState::kFailed);
  EXPECT_EQ(record.error, publish_error_);
}

TEST_F(JobRunnerTest, TwoJobsOfOneAdapterAndTooManyAreRefused) {
  JobRecord record = NewRecord("long");
  record.options.steps = 1000000;
  const auto first = runner_->Add(record, CapitalLines(20), "");
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(ReasonOf(runner_->Add(record, "x", "").status()), "JOB_EXISTS");
  for (size_t i = 1; i < JobRunner::kMaxOpenJobs; ++i) {
    record.adapter = "long" + std::to_string(i);
    ASSERT_TRUE(runner_->Add(record, CapitalLines(20), "").ok());
  }
  record.adapter = "one more";
  const absl::Status full = runner_->Add(record, "x", "").status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(full), "JOBS_FULL");
}

}  // namespace
}  // namespace lorikeet::testing
