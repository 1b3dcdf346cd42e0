// Serve in a process of its own: the ready line, signals, the exit code. The
// child is this program again, told by its environment to serve.

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/serve.h"
#include "tests/server/grpc/demo_server.h"
#include "tests/testing/golden.h"

namespace lorikeet::testing {
namespace {

constexpr char kStateDirVariable[] = "LORIKEET_SERVE_TEST_STATE_DIR";

// Not a test of its own: what the child runs.
TEST(ServeChild, Run) {
  const char* const state_dir = std::getenv(kStateDirVariable);
  if (state_dir == nullptr) GTEST_SKIP() << "runs as a child of ServeTest";
  SetLogLevel(LogLevel::kWarning);
  ServerOptions options;
  options.model_dir = DemoDir() + "/base";
  options.grpc_port = 0;
  options.threads = 1;
  options.state_dir = state_dir;
  options.kv_cache_bytes = 64 << 20;
  options.shutdown_timeout_seconds = 20;
  const absl::Status status = Serve(options);
  EXPECT_TRUE(status.ok()) << status;
}

class Child {
 public:
  Child() {
    int out[2];
    EXPECT_EQ(pipe(out), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, out[0]);
    std::string state =
        absl::StrCat(kStateDirVariable, "=", FreshTempDir("serve_state"));
    std::vector<char*> env;
    for (char** e = environ; *e != nullptr; ++e) env.push_back(*e);
    env.push_back(state.data());
    env.push_back(nullptr);
    std::string program = "/proc/self/exe";
    std::string filter = "--gtest_filter=ServeChild.Run";
    char* argv[] = {program.data(), filter.data(), nullptr};
    EXPECT_EQ(posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv,
                          env.data()),
              0);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    out_ = fdopen(out[0], "r");
  }
  ~Child() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    fclose(out_);
  }

  // Returns "HOST:PORT" of the ready line, or "" if the child ended.
  std::string WaitUntilReady() {
    char line[256];
    while (fgets(line, sizeof(line), out_) != nullptr) {
      const std::string text = line;
      const std::string prefix = "ready grpc=";
      // gtest's own lines stand around it.
      if (!absl::StartsWith(text, prefix)) continue;
      return text.substr(prefix.size(), text.size() - prefix.size() - 1);
    }
    return "";
  }
  void Signal(int number) { kill(pid_, number); }
  // Returns the exit code.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_ = 0;
  FILE* out_ = nullptr;
};

// A window that does not grow, see DemoServer.
std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

v1::GenerateRequest HeavyRequest() {
  v1::GenerateRequest request = LongRequest("base", 900);
  request.mutable_sampling()->set_n(8);
  request.mutable_output()->set_logprobs(32);
  return request;
}

TEST(ServeTest, SigtermFinishesWhatRuns) {
  Child child;
  const std::string address = child.WaitUntilReady();
  ASSERT_THAT(address, ::testing::HasSubstr("127.0.0.1:"));
  const std::shared_ptr<grpc::Channel> channel = Connect(address);
  const auto stub = v1::InferenceService::NewStub(channel);
  grpc::ClientContext context;
  const auto reader = stub->Generate(&context, HeavyRequest());
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  child.Signal(SIGTERM);
  // Soon new requests are refused.
  grpc::Status refused;
  for (int i = 0; i < 1000; ++i) {
    grpc::ClientContext other;
    v1::GenerateUnaryRequest request;
    *request.mutable_request() = TextRequest("base", "x", 1);
    v1::GenerateUnaryResponse response;
    refused = stub->GenerateUnary(&other, request, &response);
    if (!refused.ok()) break;
  }
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  int finished = 0;
  while (reader->Read(&event)) {
    finished += event.has_finished() &&
                event.finished().finish_reason() == v1::FINISH_REASON_LENGTH;
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(finished, 8);
  EXPECT_EQ(child.Wait(), 0);
}

TEST(ServeTest, SigintOfAnIdleServerEndsAtOnce) {
  Child child;
  ASSERT_NE(child.WaitUntilReady(), "");
  const absl::Time start = absl::Now();
  child.Signal(SIGINT);
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
}

TEST(ServeTest, ASecondSignalEndsAtOnce) {
  Child child;
  const std::string address = child.WaitUntilReady();
  ASSERT_NE(address, "");
  const std::shared_ptr<grpc::Channel> channel = Connect(address);
  const auto stub = v1::InferenceService::NewStub(channel);
  grpc::ClientContext context;
  const auto reader = stub->Generate(&context, HeavyRequest());
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  const absl::Time start = absl::Now();
  child.Signal(SIGTERM);
  absl::SleepFor(absl::Milliseconds(500));
  child.Signal(SIGTERM);
  EXPECT_EQ(child.Wait(), 128 + SIGTERM);
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  context.TryCancel();
  reader->Finish();
}

}  // namespace
}  // namespace lorikeet::testing
