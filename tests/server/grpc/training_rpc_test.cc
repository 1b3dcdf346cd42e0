// The TrainingService from outside: a job from examples to answers, as a
// candidate of an alias, and everything that has to be refused.

#include <functional>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lorikeet/v1/training.grpc.pb.h"
#include "tests/server/grpc/demo_server.h"
#include "tests/testing/golden.h"

namespace lorikeet::testing {
namespace {

using ::testing::HasSubstr;

constexpr char kPrompt[] = "Word: apple\nAnswer:";

// Ten words in capitals.
std::string Examples() {
  std::string lines;
  for (const char* const word :
       {"apple", "river", "cloud", "parrot", "pepper", "ocean", "banana",
        "island", "zebra", "winter"}) {
    std::string capitals = word;
    for (char& c : capitals) c = static_cast<char>(c - 32);
    absl::StrAppend(&lines, "{\"prompt\": \"Word: ", word,
                    "\\nAnswer:\", \"completion\": \" ", capitals, "\"}\n");
  }
  return lines;
}

class TrainingRpcTest : public ::testing::Test {
 protected:
  TrainingRpcTest()
      : root_(FreshTempDir("training_root")),
        demo_([this](ServerOptions* options) {
          options->train_share = 0.5;
          options->training_roots = {root_};
        }),
        stub_(v1::TrainingService::NewStub(demo_.channel())) {}

  v1::CreateTrainingJobRequest Request(const std::string& adapter) const {
    v1::CreateTrainingJobRequest request;
    request.set_parent("tenants/default");
    v1::TrainingJob& job = *request.mutable_job();
    job.set_adapter(adapter);
    job.mutable_data()->set_content(Examples());
    job.mutable_options()->set_steps(60);
    job.mutable_options()->set_batch_size(5);
    job.mutable_options()->set_learning_rate(5e-3);
    return request;
  }
  grpc::Status Create(const v1::CreateTrainingJobRequest& request,
                      v1::TrainingJob* job) {
    grpc::ClientContext context;
    return stub_->CreateTrainingJob(&context, request, job);
  }
  grpc::Status CreateError(const v1::CreateTrainingJobRequest& request) {
    v1::TrainingJob job;
    return Create(request, &job);
  }
  // The last of a watch.
  v1::TrainingJob WaitForEnd(const std::string& name) {
    grpc::ClientContext context;
    v1::WatchTrainingJobRequest request;
    request.set_name(name);
    request.mutable_interval()->set_nanos(100000000);
    const auto reader = stub_->WatchTrainingJob(&context, request);
    v1::TrainingJob job;
    while (reader->Read(&job)) {
    }
    const grpc::Status status = reader->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    return job;
  }

  const std::string root_;
  DemoServer demo_;
  const std::unique_ptr<v1::TrainingService::Stub> stub_;
};

TEST_F(TrainingRpcTest, AJobFromExamplesToAnswers) {
  v1::CreateTrainingJobRequest request = Request("up");
  request.mutable_job()->mutable_eval()->set_content(Examples());
  v1::TrainingJob job;
  const grpc::Status status = Create(request, &job);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(job.name(), "tenants/default/trainingJobs/job-1");
  EXPECT_EQ(job.options().rank(), 8u);
  EXPECT_EQ(job.options().token_budget(), 64u);
  EXPECT_EQ(job.examples(), 10u);
  job = WaitForEnd(job.name());
  EXPECT_EQ(job.state(), v1::TrainingJob::STATE_SUCCEEDED)
      << job.error().message();
  EXPECT_EQ(job.version(), 1u);
  EXPECT_EQ(job.steps_done(), 60u);
  EXPECT_EQ(job.eval_exact_match(), 1);
  EXPECT_THAT(demo_.Unary(TextRequest("up", kPrompt)).text(),
              HasSubstr("APPLE"));
  grpc::ClientContext context;
  v1::ListTrainingJobsRequest list;
  list.set_parent("tenants/default");
  v1::ListTrainingJobsResponse jobs;
  ASSERT_TRUE(stub_->ListTrainingJobs(&context, list, &jobs).ok());
  EXPECT_EQ(jobs.jobs_size(), 1);
}

TEST_F(TrainingRpcTest, ANewVersionComesAsACandidateOfItsAlias) {
  ASSERT_TRUE(demo_.Register("reverse").ok());
  v1::SetAliasRequest set;
  set.mutable_alias()->set_name("tenants/default/aliases/task");
  set.mutable_alias()->add_targets()->set_version("reverse");
  grpc::ClientContext set_context;
  v1::Alias stored;
  const grpc::Status put =
      demo_.adapters().SetAlias(&set_context, set, &stored);
  ASSERT_TRUE(put.ok()) << put.error_message();
  v1::CreateTrainingJobRequest request = Request("up");
  request.mutable_job()->mutable_canary()->set_alias("task");
  request.mutable_job()->mutable_canary()->set_percent(10);
  v1::TrainingJob job;
  ASSERT_TRUE(Create(request, &job).ok());
  EXPECT_EQ(WaitForEnd(job.name()).state(), v1::TrainingJob::STATE_SUCCEEDED);
  int candidates = 0;
  for (int i = 0; i < 200; ++i) {
    v1::GenerateRequest generate = TextRequest("task", kPrompt, 8);
    generate.set_routing_key(absl::StrCat("caller ", i));
    const Answer answer = demo_.Unary(generate);
    ASSERT_TRUE(answer.status.ok());
    if (answer.text().find("APPLE") != std::string::npos) ++candidates;
  }
  EXPECT_GT(candidates, 2);
  EXPECT_LT(candidates, 60);
}

TEST_F(TrainingRpcTest, DataOfTheServerLiesBelowARoot) {
  PosixFileSystem fs;
  ASSERT_TRUE(WriteFileDurably(fs, root_ + "/d.jsonl", Examples()).ok());
  v1::CreateTrainingJobRequest request = Request("up");
  request.mutable_job()->mutable_data()->set_local_path(root_ + "/d.jsonl");
  v1::TrainingJob job;
  ASSERT_TRUE(Create(request, &job).ok());
  request = Request("other");
  for (const std::string& path :
       {std::string("/etc/passwd"), root_ + "/../../etc/passwd", root_}) {
    request.mutable_job()->mutable_data()->set_local_path(path);
    const grpc::Status status = CreateError(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED) << path;
    EXPECT_EQ(DetailsOf(status).reason, "PATH_NOT_ALLOWED");
  }
  request.mutable_job()->mutable_data()->set_local_path(root_ + "/absent");
  EXPECT_EQ(CreateError(request).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(TrainingRpcTest, WhatIsWrongIsNamedBeforeAJobExists) {
  using Change = std::function<void(v1::TrainingJob*)>;
  struct Case {
    Change change;
    std::string message;
  };
  const auto data = [](const std::string& text) {
    return [text](v1::TrainingJob* job) {
      job->mutable_data()->set_content(text);
    };
  };
  const Case cases[] = {
      {[](v1::TrainingJob* j) { j->clear_data(); }, "job.data is empty"},
      {data("\n\n"), "job.data"},
      {data("{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt"),
       "job.data line 2"},
      {[](v1::TrainingJob* j) { j->mutable_eval()->set_content("[]"); },
       "job.eval line 1"},
      {[](v1::TrainingJob* j) { j->mutable_options()->set_learning_rate(0); },
       "options.learning_rate is 0"},
      {[](v1::TrainingJob* j) {
         j->mutable_options()->set_learning_rate(
             std::numeric_limits<double>::quiet_NaN());
       },
       "options.learning_rate is nan"},
      {[](v1::TrainingJob* j) { j->mutable_options()->set_rank(0); },
       "options.rank is 0"},
      {[](v1::TrainingJob* j) { j->mutable_options()->set_epochs(2); },
       "options.epochs 2"},
      {[](v1::TrainingJob* j) {
         j->mutable_options()->add_target_modules("nose_proj");
       },
       "nose_proj"},
      {[](v1::TrainingJob* j) { j->mutable_options()->set_schedule("wild"); },
       "job.options.schedule \"wild\""},
      {[](v1::TrainingJob* j) { j->mutable_options()->set_token_budget(8); },
       "options.token_budget"},
      {[](v1::TrainingJob* j) {
         j->mutable_canary()->set_alias("task");
         j->mutable_canary()->set_percent(100);
       },
       "job.canary.percent 100"},
      {[](v1::TrainingJob* j) { j->set_adapter("no/name"); }, "job.adapter"}};
  for (const Case& c : cases) {
    v1::CreateTrainingJobRequest request = Request("up");
    c.change(request.mutable_job());
    const grpc::Status status = CreateError(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << c.message;
    EXPECT_THAT(status.error_message(), HasSubstr(c.message));
  }
  v1::CreateTrainingJobRequest request = Request("base");
  EXPECT_EQ(CreateError(request).error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  grpc::ClientContext context;
  v1::ListTrainingJobsRequest list;
  list.set_parent("tenants/default");
  v1::ListTrainingJobsResponse jobs;
  ASSERT_TRUE(stub_->ListTrainingJobs(&context, list, &jobs).ok());
  EXPECT_EQ(jobs.jobs_size(), 0);
}

TEST_F(TrainingRpcTest, AJobThatIsNotThereIsNotFound) {
  v1::GetTrainingJobRequest get;
  get.set_name("tenants/default/trainingJobs/job-7");
  v1::TrainingJob job;
  grpc::ClientContext context;
  const grpc::Status status = stub_->GetTrainingJob(&context, get, &job);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(DetailsOf(status).reason, "JOB_NOT_FOUND");
  grpc::ClientContext watch_context;
  v1::WatchTrainingJobRequest watch;
  watch.set_name(get.name());
  const auto reader = stub_->WatchTrainingJob(&watch_context, watch);
  EXPECT_FALSE(reader->Read(&job));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST(TrainingOffTest, AServerThatDoesNotTrainSaysSo) {
  DemoServer demo;
  const auto stub = v1::TrainingService::NewStub(demo.channel());
  grpc::ClientContext context;
  v1::ListTrainingJobsRequest list;
  list.set_parent("tenants/default");
  v1::ListTrainingJobsResponse jobs;
  const grpc::Status status = stub->ListTrainingJobs(&context, list, &jobs);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailsOf(status).reason, "TRAINING_OFF");
}

}  // namespace
}  // namespace lorikeet::testing
