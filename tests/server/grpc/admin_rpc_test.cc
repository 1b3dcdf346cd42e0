// The AdminService, health, reflection and the limits of the transport.

#include <grpcpp/generic/generic_stub.h>

#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/grpc/demo_server.h"

namespace lorikeet::testing {
namespace {

using ::testing::HasSubstr;

grpc::ByteBuffer Bytes(const std::string& text) {
  const grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

std::string Text(grpc::ByteBuffer buffer) {
  grpc::Slice slice;
  if (!buffer.DumpToSingleSlice(&slice).ok()) return "";
  return std::string(reinterpret_cast<const char*>(slice.begin()),
                     slice.size());
}

// Sends one message on a call whose messages are not generated here, reads one.
std::string CallRaw(const std::shared_ptr<grpc::Channel>& channel,
                    const std::string& method, const std::string& request,
                    grpc::Status* status) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, method, &queue);
  grpc::ByteBuffer answer;
  void* tag = nullptr;
  bool ok = false;
  const auto wait = [&] { return queue.Next(&tag, &ok) && ok; };
  call->StartCall(&tag);
  wait();
  call->Write(Bytes(request), &tag);
  wait();
  call->WritesDone(&tag);
  wait();
  call->Read(&answer, &tag);
  const bool has_answer = wait();
  call->Finish(status, &tag);
  wait();
  return has_answer ? Text(answer) : "";
}

// A message with one string field below number 16.
std::string StringField(int number, const std::string& value) {
  return absl::StrCat(std::string(1, static_cast<char>(number << 3 | 2)),
                      std::string(1, static_cast<char>(value.size())), value);
}

// The serving status of grpc.health.v1: 1 = SERVING, 2 = NOT_SERVING, -1 = no
// such service.
int HealthOf(DemoServer& demo, const std::string& service) {
  grpc::Status status;
  const std::string answer =
      CallRaw(demo.channel(), "/grpc.health.v1.Health/Check",
              service.empty() ? "" : StringField(1, service), &status);
  if (status.error_code() == grpc::StatusCode::NOT_FOUND) return -1;
  EXPECT_TRUE(status.ok()) << status.error_message();
  return answer.size() == 2 ? answer[1] : 0;
}

constexpr const char* kReadyNames[] = {
    "", "readiness", "lorikeet.v1.InferenceService",
    "lorikeet.v1.AdapterService", "lorikeet.v1.AdminService"};

TEST(AdminRpc, TellsWhatTheServerIs) {
  DemoServer demo;
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  ASSERT_TRUE(demo.admin()
                  .GetServerInfo(&context, v1::GetServerInfoRequest(), &info)
                  .ok());
  EXPECT_EQ(info.base_model(), "base");
  EXPECT_EQ(info.backend(), "cpu");
  EXPECT_EQ(info.dtype(), "bf16");
  EXPECT_EQ(info.max_model_len(), 1024u);
  EXPECT_EQ(info.max_loras(), 64u);
  EXPECT_EQ(info.max_lora_rank(), 256u);
  EXPECT_EQ(info.base_fingerprint().size(), 64u);
  EXPECT_FALSE(info.version().empty());
  EXPECT_FALSE(info.device().empty());
  EXPECT_TRUE(info.has_uptime());
  // Every call has an id.
  EXPECT_EQ(context.GetServerInitialMetadata().count("x-request-id"), 1u);
}

TEST(AdminRpc, WatchLoadSendsUntilCancelled) {
  DemoServer demo;
  grpc::ClientContext context;
  v1::WatchLoadRequest request;
  request.mutable_interval()->set_nanos(100000000);
  const auto watch = demo.admin().WatchLoad(&context, request);
  v1::Load load;
  const absl::Time start = absl::Now();
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(watch->Read(&load));
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(280));
  context.TryCancel();
  while (watch->Read(&load)) {
  }
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);

  grpc::ClientContext bad_context;
  request.mutable_interval()->set_nanos(1000000);
  const auto bad = demo.admin().WatchLoad(&bad_context, request);
  EXPECT_FALSE(bad->Read(&load));
  const grpc::Status status = bad->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(status).field, "interval");
  EXPECT_THAT(status.error_message(), HasSubstr("1ms"));
}

TEST(AdminRpc, FlushDropsThePrefixCache) {
  DemoServer demo;
  const std::string prompt =
      "The rainbow lorikeet is a small parrot with a bright blue head.";
  const Answer first = demo.Stream(TextRequest("base", prompt));
  EXPECT_EQ(first.started.cached_tokens(), 0u);
  EXPECT_GT(demo.Stream(TextRequest("base", prompt)).started.cached_tokens(),
            0u);
  ASSERT_TRUE(demo.BecomesIdle());
  grpc::ClientContext context;
  v1::FlushCacheResponse flushed;
  ASSERT_TRUE(demo.admin()
                  .FlushCache(&context, v1::FlushCacheRequest(), &flushed)
                  .ok());
  EXPECT_GT(flushed.freed_blocks(), 0u);
  EXPECT_EQ(demo.Stream(TextRequest("base", prompt)).started.cached_tokens(),
            0u);
  EXPECT_GT(demo.Load().generated_tokens(), 0u);
}

TEST(AdminRpc, DrainEndsReadinessAndLetsRequestsFinish) {
  DemoServer demo;
  for (const char* const name : kReadyNames) {
    EXPECT_EQ(HealthOf(demo, name), 1) << name;
  }
  EXPECT_EQ(HealthOf(demo, "liveness"), 1);
  EXPECT_EQ(HealthOf(demo, "nonsense"), -1);

  grpc::ClientContext context;
  v1::GenerateRequest request = LongRequest("base", 900);
  request.mutable_sampling()->set_n(8);
  request.mutable_output()->set_logprobs(32);
  const auto reader = demo.inference().Generate(&context, request);
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));

  v1::DrainServerRequest drain;
  drain.mutable_timeout()->set_nanos(50000000);
  v1::DrainServerResponse drained;
  {
    grpc::ClientContext drain_context;
    ASSERT_TRUE(demo.admin().DrainServer(&drain_context, drain, &drained).ok());
  }
  EXPECT_EQ(drained.remaining_requests(), 1u);
  for (const char* const name : kReadyNames) {
    EXPECT_EQ(HealthOf(demo, name), 2) << name;
  }
  EXPECT_EQ(HealthOf(demo, "liveness"), 1);
  const grpc::Status refused = demo.Stream(TextRequest("base", "x")).status;
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailsOf(refused).reason, "SERVER_DRAINING");
  EXPECT_TRUE(DetailsOf(refused).has_retry);

  int finished = 0;
  while (reader->Read(&event)) {
    if (!event.has_finished()) continue;
    ++finished;
    EXPECT_EQ(event.finished().finish_reason(), v1::FINISH_REASON_LENGTH);
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(finished, 8);
  grpc::ClientContext again;
  drain.clear_timeout();
  ASSERT_TRUE(demo.admin().DrainServer(&again, drain, &drained).ok());
  EXPECT_EQ(drained.remaining_requests(), 0u);
}

TEST(Server, ShutdownEndsWhatDoesNotFinish) {
  DemoServer demo;
  grpc::ClientContext context;
  v1::GenerateRequest request = LongRequest("base", 1000);
  request.mutable_sampling()->set_n(8);
  request.mutable_output()->set_logprobs(32);
  const auto reader = demo.inference().Generate(&context, request);
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  std::future<void> down = std::async(std::launch::async, [&] {
    demo.server().Shutdown(absl::Milliseconds(50));
  });
  int aborted = 0;
  while (reader->Read(&event)) {
    if (event.has_finished() &&
        event.finished().finish_reason() == v1::FINISH_REASON_ABORT) {
      ++aborted;
    }
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(aborted, 8);
  down.get();
}

TEST(Server, RefusesAPortInUse) {
  DemoServer demo;
  ServerOptions options;
  options.model_dir = DemoDir() + "/base";
  options.state_dir = demo.state_dir() + "_other";
  options.grpc_port = demo.server().grpc_port();
  options.kv_cache_bytes = 64 << 20;
  const auto second = Server::Start(options);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(demo.server().grpc_address()));
}

TEST(Server, RegistersLoraModulesAtTheStart) {
  const auto with = [](const std::vector<std::string>& modules,
                       const std::string& state_dir) {
    return [=](ServerOptions* options) {
      options->lora_modules = modules;
      options->adapter_roots = {};
      if (!state_dir.empty()) options->state_dir = state_dir;
    };
  };
  const auto version = [](DemoServer& demo) {
    return demo.Stream(TextRequest("c", "Word: parrot\nAnswer:"));
  };
  const std::string v1_dir = DemoAdapterDir("caesar");
  const std::string v2_dir = DemoDir() + "/adapters-v2/caesar";
  std::string state_dir;
  {
    DemoServer demo(with({"c=" + v1_dir}, ""));
    EXPECT_EQ(version(demo).text(), " sduurw");
    state_dir = demo.state_dir();
  }
  {
    DemoServer demo(with({"c=" + v1_dir}, state_dir));
    EXPECT_EQ(version(demo).started.adapter_version(), 1u) << "nothing to do";
  }
  {
    DemoServer demo(with({"c=" + v2_dir}, state_dir));
    EXPECT_EQ(version(demo).started.adapter_version(), 2u);
    EXPECT_EQ(version(demo).text(), " ufwwty");
  }
  ServerOptions options;
  options.model_dir = DemoDir() + "/base";
  options.state_dir = state_dir + "_other";
  options.grpc_port = 0;
  options.kv_cache_bytes = 64 << 20;
  options.lora_modules = {"broken=" + DemoDir() + "/none"};
  const auto broken = Server::Start(options);
  ASSERT_FALSE(broken.ok());
  EXPECT_THAT(std::string(broken.status().message()), HasSubstr("broken"));
}

TEST(Server, RefusesAHostBeyondLoopback) {
  ServerOptions options;
  options.model_dir = DemoDir() + "/base";
  options.host = "0.0.0.0";
  const auto server = Server::Start(options);
  ASSERT_FALSE(server.ok());
  EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(server.status().message()), HasSubstr("0.0.0.0"));
  EXPECT_THAT(std::string(server.status().message()), HasSubstr("--insecure"));
}

TEST(Transport, ReflectionListsTheServices) {
  DemoServer demo;
  grpc::Status status;
  // ServerReflectionRequest.list_services = 7
  const std::string answer =
      CallRaw(demo.channel(),
              "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
              StringField(7, "*"), &status);
  for (const char* const name :
       {"lorikeet.v1.InferenceService", "lorikeet.v1.AdapterService",
        "lorikeet.v1.AdminService", "grpc.health.v1.Health"}) {
    EXPECT_THAT(answer, HasSubstr(name));
  }
  // file_containing_symbol = 4
  EXPECT_THAT(
      CallRaw(demo.channel(),
              "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
              StringField(4, "lorikeet.v1.AdapterService"), &status),
      HasSubstr("UploadAdapter"));
}

TEST(Transport, RefusesMalformedAndHugeMessages) {
  DemoServer demo;
  grpc::Status status;
  CallRaw(demo.channel(), "/lorikeet.v1.InferenceService/Generate",
          "\xff\xff\xff", &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(status).reason, "MALFORMED_MESSAGE");
  CallRaw(demo.channel(), "/lorikeet.v1.AdminService/GetLoad", "\xff\xff\xff",
          &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  CallRaw(demo.channel(), "/lorikeet.v1.AdapterService/GetAdapter",
          StringField(1, "\xff"), &status);
  EXPECT_EQ(DetailsOf(status).reason, "INVALID_UTF8");
  EXPECT_EQ(DetailsOf(status).field, "name");
  const Answer huge =
      demo.Stream(TextRequest("base", std::string((16 << 20) + 1, 'x')));
  EXPECT_EQ(huge.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  CallRaw(demo.channel(), "/lorikeet.v1.AdminService/Nonsense", "", &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_TRUE(demo.Stream(TextRequest("base", "x")).status.ok());
}

TEST(Transport, RefusesCompressedMessages) {
  DemoServer demo;
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  v1::GenerateUnaryRequest request;
  *request.mutable_request() = TextRequest("base", std::string(2000, 'x'));
  v1::GenerateUnaryResponse response;
  const grpc::Status status =
      demo.inference().GenerateUnary(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED)
      << status.error_message();
}

}  // namespace
}  // namespace lorikeet::testing
