#include "tests/server/grpc/demo_server.h"

#include <atomic>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/log.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "tests/testing/golden.h"

namespace lorikeet::testing {
namespace {

std::string FreshStateDir() {
  static std::atomic<int> next = 0;
  const auto* const info =
      ::testing::UnitTest::GetInstance()->current_test_info();
  return FreshTempDir(absl::StrCat("state_", info->test_suite_name(), "_",
                                   info->name(), "_", next.fetch_add(1)));
}

DemoCase ReadCase(const std::string& task, const Json& json, int64_t eos) {
  DemoCase c;
  c.task = task;
  c.prompt = json.Find("prompt")->AsString();
  c.max_tokens = static_cast<uint32_t>(json.Find("max_tokens")->AsInt());
  c.text = json.Find("output_text")->AsString();
  for (const Json& id : json.Find("output_ids")->items()) {
    if (id.AsInt() != eos) c.ids.push_back(static_cast<uint32_t>(id.AsInt()));
  }
  c.reason = json.Find("finish_reason")->AsString() == "stop"
                 ? v1::FINISH_REASON_STOP
                 : v1::FINISH_REASON_LENGTH;
  return c;
}

void ReadCases(const std::string& task, const Json& owner, size_t max,
               std::vector<DemoCase>* out) {
  const int64_t eos = DemoGoldens().Find("eos_token_id")->AsInt();
  size_t count = 0;
  for (const Json& json : owner.Find("cases")->items()) {
    if (count++ == max) break;
    out->push_back(ReadCase(task, json, eos));
  }
}

template <typename Context>
std::string RequestIdOf(const Context& context) {
  const auto& metadata = context.GetServerInitialMetadata();
  const auto it = metadata.find("x-request-id");
  return it == metadata.end()
             ? ""
             : std::string(it->second.data(), it->second.size());
}

v1::Candidate& CandidateAt(uint32_t index, Answer* answer) {
  while (answer->candidates.size() <= index) answer->candidates.emplace_back();
  return answer->candidates[index];
}

}  // namespace

std::string DemoDir() { return JoinPath(SourceDir(), "demo"); }

std::string DemoAdapterDir(const std::string& name) {
  return absl::StrCat(DemoDir(), "/adapters/", name);
}

const Json& DemoGoldens() {
  static const Json* const goldens = [] {
    PosixFileSystem fs;
    const auto text =
        fs.ReadFile(JoinPath(DemoDir(), "goldens.json"), 64 << 20);
    CHECK(text.ok());
    auto json = Json::Parse(*text);
    CHECK(json.ok());
    return new Json(*std::move(json));
  }();
  return *goldens;
}

std::vector<DemoCase> DemoCases(size_t max_per_task) {
  std::vector<DemoCase> cases;
  ReadCases("base", *DemoGoldens().Find("base"), max_per_task, &cases);
  for (const Json& adapter : DemoGoldens().Find("adapters")->items()) {
    ReadCases(adapter.Find("name")->AsString(), adapter, max_per_task, &cases);
  }
  return cases;
}

std::vector<DemoCase> CaesarUpdateCases() {
  std::vector<DemoCase> cases;
  for (const Json& update : DemoGoldens().Find("updates")->items()) {
    ReadCases("caesar", update, 5, &cases);
  }
  return cases;
}

ErrorDetails DetailsOf(const grpc::Status& status) {
  ErrorDetails out;
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return out;
  EXPECT_EQ(details.code(), static_cast<int>(status.error_code()));
  EXPECT_EQ(details.message(), status.error_message());
  for (const google::protobuf::Any& any : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::ResourceInfo resource;
    if (any.UnpackTo(&info)) {
      out.reason = info.reason();
      out.domain = info.domain();
      out.metadata.insert(info.metadata().begin(), info.metadata().end());
    } else if (any.UnpackTo(&bad)) {
      out.field = bad.field_violations(0).field();
    } else if (any.UnpackTo(&resource)) {
      out.resource_type = resource.resource_type();
      out.resource_name = resource.resource_name();
    } else if (any.Is<google::rpc::RetryInfo>()) {
      out.has_retry = true;
    }
  }
  return out;
}

std::vector<uint32_t> Answer::ids() const {
  const int64_t eos = DemoGoldens().Find("eos_token_id")->AsInt();
  std::vector<uint32_t> ids(candidates.at(0).output().token_ids().begin(),
                            candidates.at(0).output().token_ids().end());
  if (!ids.empty() && ids.back() == eos) ids.pop_back();
  return ids;
}

DemoServer::DemoServer(const std::function<void(ServerOptions*)>& tweak) {
  SetLogLevel(LogLevel::kWarning);
  state_dir_ = FreshStateDir();
  ServerOptions options;
  options.model_dir = JoinPath(DemoDir(), "base");
  options.grpc_port = 0;
  options.threads = 1;
  options.state_dir = state_dir_;
  options.adapter_roots = {DemoDir()};
  options.kv_cache_bytes = 64 << 20;
  tweak(&options);
  auto server = Server::Start(options);
  if (!server.ok()) std::cerr << server.status() << std::endl;
  CHECK(server.ok());
  server_ = *std::move(server);
  // A window that does not grow: a reader that does not read stalls after
  // 64 KiB.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  channel_ = grpc::CreateCustomChannel(
      server_->grpc_address(), grpc::InsecureChannelCredentials(), arguments);
  inference_ = v1::InferenceService::NewStub(channel_);
  adapters_ = v1::AdapterService::NewStub(channel_);
  admin_ = v1::AdminService::NewStub(channel_);
}

grpc::Status DemoServer::Register(const std::string& name,
                                  const std::string& dir) {
  v1::CreateAdapterRequest request;
  request.set_parent("tenants/default");
  request.set_adapter_id(name);
  request.mutable_adapter()->mutable_source()->set_local_path(
      dir.empty() ? DemoAdapterDir(name) : dir);
  grpc::ClientContext context;
  v1::Adapter adapter;
  return adapters_->CreateAdapter(&context, request, &adapter);
}

void DemoServer::RegisterAll() {
  for (const Json& adapter : DemoGoldens().Find("adapters")->items()) {
    const grpc::Status status = Register(adapter.Find("name")->AsString());
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
}

Answer DemoServer::Stream(const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  Answer answer;
  const auto reader = inference_->Generate(&context, request);
  v1::GenerateResponse event;
  while (reader->Read(&event)) {
    if (event.has_started()) {
      answer.started = event.started();
    } else if (event.has_delta()) {
      v1::TokenDelta* const out =
          CandidateAt(event.delta().index(), &answer).mutable_output();
      out->mutable_text()->append(event.delta().text());
      out->mutable_token_ids()->MergeFrom(event.delta().token_ids());
      out->mutable_logprobs()->MergeFrom(event.delta().logprobs());
    } else {
      *CandidateAt(event.finished().index(), &answer).mutable_finished() =
          event.finished();
    }
  }
  answer.status = reader->Finish();
  answer.request_id = RequestIdOf(context);
  return answer;
}

Answer DemoServer::Unary(const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  v1::GenerateUnaryRequest unary;
  *unary.mutable_request() = request;
  v1::GenerateUnaryResponse response;
  Answer answer;
  answer.status = inference_->GenerateUnary(&context, unary, &response);
  answer.started = response.started();
  answer.candidates.assign(response.candidates().begin(),
                           response.candidates().end());
  answer.request_id = RequestIdOf(context);
  return answer;
}

v1::Load DemoServer::Load() {
  grpc::ClientContext context;
  v1::Load load;
  const grpc::Status status =
      admin_->GetLoad(&context, v1::GetLoadRequest(), &load);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return load;
}

bool DemoServer::BecomesIdle() {
  for (int i = 0; i < 1000; ++i) {
    const v1::Load load = Load();
    if (load.running_requests() == 0 && load.waiting_requests() == 0) {
      return true;
    }
    lorikeet::SleepFor(absl::Milliseconds(5));
  }
  return false;
}

uint32_t DemoServer::ActiveRequests(const std::string& name) {
  grpc::ClientContext context;
  v1::GetAdapterRequest request;
  request.set_name(absl::StrCat("tenants/default/adapters/", name));
  v1::Adapter adapter;
  const grpc::Status status =
      adapters_->GetAdapter(&context, request, &adapter);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return adapter.active_requests();
}

v1::GenerateRequest TextRequest(const std::string& task,
                                const std::string& prompt,
                                uint32_t max_tokens) {
  v1::GenerateRequest request;
  request.set_task(task);
  request.set_text(prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stop()->set_max_tokens(max_tokens);
  return request;
}

v1::GenerateRequest LongRequest(const std::string& task, uint32_t max_tokens) {
  v1::GenerateRequest request =
      TextRequest(task, "Word: parrot\nAnswer:", max_tokens);
  request.mutable_stop()->set_ignore_eos(true);
  return request;
}

}  // namespace lorikeet::testing
