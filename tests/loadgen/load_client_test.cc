// A server in this process that answers with as many tokens as asked for.

#include "loadgen/load_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/reason.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "lorikeet/v1/inference.grpc.pb.h"

namespace lorikeet {
namespace {

class FakeInference final : public v1::InferenceService::Service {
 public:
  grpc::Status Generate(
      grpc::ServerContext*, const v1::GenerateRequest* request,
      grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    Enter();
    const grpc::Status status = Answer(*request, *writer);
    Leave();
    return status;
  }

  int peak() {
    MutexLock lock(&mu_);
    return peak_;
  }
  int calls() {
    MutexLock lock(&mu_);
    return calls_;
  }
  // Lets no answer end before so many calls have been in here at once.
  void RequireTogether(int together) {
    MutexLock lock(&mu_);
    together_ = together;
  }

 private:
  void Enter() {
    MutexLock lock(&mu_);
    ++calls_;
    peak_ = std::max(peak_, ++inside_);
    changed_.SignalAll();
    while (peak_ < together_) changed_.Wait(&mu_);
  }
  void Leave() {
    MutexLock lock(&mu_);
    --inside_;
  }

  static grpc::Status Answer(const v1::GenerateRequest& request,
                             grpc::ServerWriter<v1::GenerateResponse>& writer) {
    if (request.task() == "refused") return Refusal();
    v1::GenerateResponse event;
    event.mutable_started()->set_prompt_tokens(request.token_ids().ids_size());
    event.mutable_started()->set_cached_tokens(1);
    writer.Write(event);
    for (uint32_t i = 0; i < request.stop().max_tokens(); ++i) {
      event.mutable_delta()->clear_token_ids();
      event.mutable_delta()->add_token_ids(i);
      writer.Write(event);
    }
    event.mutable_finished()->set_finish_reason(v1::FINISH_REASON_LENGTH);
    writer.Write(event);
    return grpc::Status::OK;
  }

  static grpc::Status Refusal() {
    google::rpc::ErrorInfo info;
    info.set_reason("TASK_NOT_FOUND");
    google::rpc::Status details;
    details.add_details()->PackFrom(info);
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such task",
                        details.SerializeAsString());
  }

  Mutex mu_;
  CondVar changed_;
  int together_ ABSL_GUARDED_BY(mu_) = 0;
  int inside_ ABSL_GUARDED_BY(mu_) = 0;
  int peak_ ABSL_GUARDED_BY(mu_) = 0;
  int calls_ ABSL_GUARDED_BY(mu_) = 0;
};

class LoadClientTest : public testing::Test {
 protected:
  LoadClientTest() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
  }
  ~LoadClientTest() override { server_->Shutdown(); }

  LoadClientOptions Options() const {
    LoadClientOptions options;
    options.server = absl::StrCat("127.0.0.1:", port_);
    return options;
  }

  static WorkloadOptions Load(uint64_t num_requests) {
    WorkloadOptions options;
    options.tasks = {{"a", {}}, {"b", {}}};
    options.alphabet = {1, 2, 3};
    options.prompt_tokens = Lengths(7);
    options.output_tokens = Lengths(5);
    options.num_requests = num_requests;
    return options;
  }

  FakeInference service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(LoadClientTest, MeasuresEveryRequest) {
  Workload workload(Load(20));
  const std::vector<LoadResult> results = LoadClient(Options()).Run(workload);
  ASSERT_EQ(results.size(), 20u);
  EXPECT_EQ(service_.calls(), 20);
  for (const LoadResult& result : results) {
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_EQ(result.prompt_tokens, 7u);
    EXPECT_EQ(result.cached_tokens, 1u);
    EXPECT_EQ(result.output_tokens, 5u);
    EXPECT_EQ(result.gaps_s.size(), 4u);
    EXPECT_LE(result.due, result.sent);
    EXPECT_LE(result.sent, result.first_token);
    EXPECT_LE(result.first_token, result.last_token);
    EXPECT_LE(result.last_token, result.end);
  }
}

TEST_F(LoadClientTest, ClosedLoopKeepsItsConcurrency) {
  service_.RequireTogether(3);  // fewer would never end
  LoadClientOptions options = Options();
  options.max_in_flight = 3;
  Workload workload(Load(30));
  EXPECT_EQ(LoadClient(options).Run(workload).size(), 30u);
  EXPECT_EQ(service_.peak(), 3);
}

TEST_F(LoadClientTest, OpenLoopIsBoundedAndCountsTheWait) {
  LoadClientOptions options = Options();
  options.max_in_flight = 1;
  WorkloadOptions load = Load(30);
  load.requests_per_second = 1e9;  // all are due at once
  Workload workload(load);
  const std::vector<LoadResult> results = LoadClient(options).Run(workload);
  EXPECT_EQ(service_.peak(), 1);
  ASSERT_EQ(results.size(), 30u);
  EXPECT_LT(results.back().due, absl::Milliseconds(1));
  // It waited for the 29 before it, and that counts.
  EXPECT_GE(results.back().sent, results[28].end);
}

TEST_F(LoadClientTest, OpenLoopSendsNothingBeforeItIsDue) {
  WorkloadOptions load = Load(20);
  load.requests_per_second = 500;
  Workload workload(load);
  for (const LoadResult& result : LoadClient(Options()).Run(workload)) {
    EXPECT_GE(result.sent, result.due);
  }
}

TEST_F(LoadClientTest, ReportsRefusalsWithTheirReason) {
  WorkloadOptions load = Load(4);
  load.tasks = {{"refused", {}}};
  Workload workload(load);
  const std::vector<LoadResult> results = LoadClient(Options()).Run(workload);
  ASSERT_EQ(results.size(), 4u);
  for (const LoadResult& result : results) {
    EXPECT_EQ(result.status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(ReasonOf(result.status), "TASK_NOT_FOUND");
  }
}

TEST_F(LoadClientTest, EndsWithoutAServer) {
  LoadClientOptions options = Options();
  server_->Shutdown();
  options.connections = 2;
  Workload workload(Load(3));
  for (const LoadResult& result : LoadClient(options).Run(workload)) {
    EXPECT_EQ(result.status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(ReasonOf(result.status), "NO_SERVER");
  }
}

}  // namespace
}  // namespace lorikeet
