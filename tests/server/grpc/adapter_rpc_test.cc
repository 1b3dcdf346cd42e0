// The AdapterService against a server with the demo model.

#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/file_system.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/grpc/demo_server.h"
#include "tests/testing/golden.h"

namespace lorikeet::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string NameOf(const std::string& id) {
  return absl::StrCat("tenants/default/adapters/", id);
}

// Blocking calls that return the status and fill the answer.
class Client {
 public:
  explicit Client(DemoServer& demo) : stub_(demo.adapters()) {}

  grpc::Status Create(const v1::CreateAdapterRequest& request) {
    grpc::ClientContext context;
    return stub_.CreateAdapter(&context, request, &adapter);
  }
  grpc::Status Get(const std::string& name) {
    grpc::ClientContext context;
    v1::GetAdapterRequest request;
    request.set_name(name);
    return stub_.GetAdapter(&context, request, &adapter);
  }
  grpc::Status Update(const v1::UpdateAdapterRequest& request) {
    grpc::ClientContext context;
    return stub_.UpdateAdapter(&context, request, &adapter);
  }
  grpc::Status Delete(const v1::DeleteAdapterRequest& request) {
    grpc::ClientContext context;
    google::protobuf::Empty empty;
    return stub_.DeleteAdapter(&context, request, &empty);
  }
  grpc::Status Delete(const std::string& id,
                      v1::InFlightPolicy policy = v1::IN_FLIGHT_POLICY_DRAIN) {
    v1::DeleteAdapterRequest request;
    request.set_name(NameOf(id));
    request.set_in_flight(policy);
    return Delete(request);
  }
  grpc::Status Load(const std::string& id, v1::Tier tier,
                    std::optional<bool> pinned = std::nullopt) {
    grpc::ClientContext context;
    v1::LoadAdapterRequest request;
    request.set_name(NameOf(id));
    request.set_tier(tier);
    if (pinned.has_value()) request.set_pinned(*pinned);
    return stub_.LoadAdapter(&context, request, &adapter);
  }
  grpc::Status Unload(const std::string& id, v1::Tier tier,
                      v1::InFlightPolicy policy) {
    grpc::ClientContext context;
    v1::UnloadAdapterRequest request;
    request.set_name(NameOf(id));
    request.set_tier(tier);
    request.set_in_flight(policy);
    return stub_.UnloadAdapter(&context, request, &adapter);
  }
  std::vector<std::string> ListIds(int32_t page_size = 0) {
    std::vector<std::string> ids;
    v1::ListAdaptersRequest request;
    request.set_parent("tenants/default");
    request.set_page_size(page_size);
    do {
      grpc::ClientContext context;
      v1::ListAdaptersResponse response;
      const grpc::Status status =
          stub_.ListAdapters(&context, request, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      for (const v1::Adapter& a : response.adapters()) {
        ids.push_back(a.name().substr(NameOf("").size()));
      }
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    return ids;
  }
  std::vector<uint32_t> ListVersions(const std::string& id) {
    grpc::ClientContext context;
    v1::ListAdapterVersionsRequest request;
    request.set_parent(NameOf(id));
    v1::ListAdapterVersionsResponse response;
    const grpc::Status status =
        stub_.ListAdapterVersions(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    std::vector<uint32_t> numbers;
    for (const v1::Version& v : response.versions()) {
      numbers.push_back(v.number());
    }
    return numbers;
  }
  grpc::Status SetAlias(const std::string& id, const std::string& version) {
    grpc::ClientContext context;
    v1::SetAliasRequest request;
    request.mutable_alias()->set_name("tenants/default/aliases/" + id);
    request.mutable_alias()->add_targets()->set_version(version);
    return stub_.SetAlias(&context, request, &alias);
  }
  grpc::Status GetAlias(const std::string& id) {
    grpc::ClientContext context;
    v1::GetAliasRequest request;
    request.set_name("tenants/default/aliases/" + id);
    return stub_.GetAlias(&context, request, &alias);
  }
  grpc::Status DeleteAlias(const std::string& id) {
    grpc::ClientContext context;
    v1::DeleteAliasRequest request;
    request.set_name("tenants/default/aliases/" + id);
    google::protobuf::Empty empty;
    return stub_.DeleteAlias(&context, request, &empty);
  }

  v1::Adapter adapter;  // of the last answer
  v1::Alias alias;

 private:
  v1::AdapterService::Stub& stub_;
};

void ExpectError(const grpc::Status& status, grpc::StatusCode code,
                 const std::string& reason,
                 const std::vector<std::string>& parts) {
  EXPECT_EQ(status.error_code(), code) << status.error_message();
  EXPECT_EQ(DetailsOf(status).reason, reason) << status.error_message();
  for (const std::string& part : parts) {
    EXPECT_THAT(status.error_message(), HasSubstr(part));
  }
}

v1::CreateAdapterRequest CreateRequest(const std::string& id,
                                       const std::string& dir) {
  v1::CreateAdapterRequest request;
  request.set_parent("tenants/default");
  request.set_adapter_id(id);
  request.mutable_adapter()->mutable_source()->set_local_path(dir);
  return request;
}

TEST(AdapterRpc, LifeOfAnAdapter) {
  DemoServer demo;
  Client client(demo);
  v1::CreateAdapterRequest create =
      CreateRequest("up", DemoAdapterDir("upper"));
  create.mutable_adapter()->set_display_name("Upper case");
  (*create.mutable_adapter()->mutable_labels())["team"] = "x";
  create.set_validate_only(true);
  ASSERT_TRUE(client.Create(create).ok());
  EXPECT_THAT(client.ListIds(), ElementsAre());
  create.set_validate_only(false);
  const grpc::Status created = client.Create(create);
  ASSERT_TRUE(created.ok()) << created.error_message();

  EXPECT_EQ(client.adapter.name(), NameOf("up"));
  EXPECT_EQ(client.adapter.state(), v1::Adapter::STATE_ACTIVE);
  EXPECT_EQ(client.adapter.version(), 1u);
  EXPECT_EQ(client.adapter.base_model(), "base");
  EXPECT_EQ(client.adapter.display_name(), "Upper case");
  EXPECT_EQ(client.adapter.labels().at("team"), "x");
  EXPECT_GT(client.adapter.lora().rank(), 0u);
  EXPECT_GT(client.adapter.lora().modules_size(), 0);
  EXPECT_GT(client.adapter.size_bytes(), 0u);
  EXPECT_GT(client.adapter.create_time().seconds(), 0);
  EXPECT_FALSE(client.adapter.uid().empty());
  const v1::Adapter first = client.adapter;

  // Metadata, guarded by the etag.
  v1::UpdateAdapterRequest update;
  update.mutable_adapter()->set_name(NameOf("up"));
  update.mutable_adapter()->set_display_name("Capitals");
  update.mutable_adapter()->set_etag(first.etag());
  update.mutable_update_mask()->add_paths("display_name");
  ASSERT_TRUE(client.Update(update).ok());
  EXPECT_EQ(client.adapter.display_name(), "Capitals");
  EXPECT_EQ(client.adapter.labels().at("team"), "x");
  EXPECT_NE(client.adapter.etag(), first.etag());
  ExpectError(client.Update(update), grpc::StatusCode::ABORTED, "ETAG_MISMATCH",
              {});
  update.mutable_adapter()->set_etag("xyz");
  ExpectError(client.Update(update), grpc::StatusCode::ABORTED, "ETAG_MISMATCH",
              {"xyz"});

  // The same content is no new version, other content is.
  v1::UpdateAdapterRequest source;
  source.mutable_adapter()->set_name(NameOf("up"));
  source.mutable_adapter()->mutable_source()->set_local_path(
      DemoAdapterDir("upper"));
  ASSERT_TRUE(client.Update(source).ok());
  EXPECT_THAT(client.ListVersions("up"), ElementsAre(1));
  source.mutable_adapter()->mutable_source()->set_local_path(
      DemoAdapterDir("reverse"));
  ASSERT_TRUE(client.Update(source).ok());
  EXPECT_EQ(client.adapter.uid(), first.uid());
  EXPECT_EQ(client.adapter.version(), 2u);
  EXPECT_THAT(client.ListVersions("up"), ElementsAre(2, 1));

  ASSERT_TRUE(client.Delete("up").ok());
  ExpectError(client.Get(NameOf("up")), grpc::StatusCode::NOT_FOUND,
              "ADAPTER_NOT_FOUND", {"up"});
  EXPECT_EQ(DetailsOf(client.Get(NameOf("up"))).resource_name, NameOf("up"));
  ExpectError(client.Delete("up"), grpc::StatusCode::NOT_FOUND,
              "ADAPTER_NOT_FOUND", {"up"});
  v1::DeleteAdapterRequest missing;
  missing.set_name(NameOf("up"));
  missing.set_allow_missing(true);
  EXPECT_TRUE(client.Delete(missing).ok());
  EXPECT_EQ(demo.Stream(TextRequest("up", "x")).status.error_code(),
            grpc::StatusCode::NOT_FOUND);

  // A name that comes again is another adapter.
  ASSERT_TRUE(client.Create(create).ok());
  EXPECT_NE(client.adapter.uid(), first.uid());
}

TEST(AdapterRpc, SurvivesARestart) {
  std::string state_dir;
  {
    DemoServer demo;
    demo.RegisterAll();
    Client client(demo);
    ASSERT_TRUE(client.SetAlias("shout", "upper@1").ok());
    state_dir = demo.state_dir();
  }
  DemoServer demo(
      [&](ServerOptions* options) { options->state_dir = state_dir; });
  Client client(demo);
  EXPECT_EQ(client.ListIds(3).size(), 8u);
  EXPECT_EQ(demo.Stream(TextRequest("shout", "Word: parrot\nAnswer:")).text(),
            " PARROT");
}

TEST(AdapterRpc, AliasesPointToVersions) {
  DemoServer demo;
  demo.RegisterAll();
  Client client(demo);
  const std::string prompt = "Word: parrot\nAnswer:";
  ASSERT_TRUE(client.SetAlias("task", "reverse").ok());
  EXPECT_EQ(client.alias.targets(0).version(), "reverse@1");
  EXPECT_EQ(demo.Stream(TextRequest("task", prompt)).text(), " torrap");
  ASSERT_TRUE(client.SetAlias("task", "upper@1").ok());
  EXPECT_EQ(demo.Stream(TextRequest("task", prompt)).text(), " PARROT");
  ASSERT_TRUE(client.GetAlias("task").ok());
  EXPECT_EQ(client.alias.targets(0).version(), "upper@1");

  ExpectError(client.SetAlias("task", "nobody"), grpc::StatusCode::NOT_FOUND,
              "ADAPTER_NOT_FOUND", {"nobody"});
  ExpectError(client.SetAlias("upper", "reverse"),
              grpc::StatusCode::ALREADY_EXISTS, "ADAPTER_EXISTS", {"upper"});
  ExpectError(client.SetAlias("base", "reverse"),
              grpc::StatusCode::ALREADY_EXISTS, "ADAPTER_EXISTS", {"base"});
  ExpectError(client.SetAlias("bad name", "reverse"),
              grpc::StatusCode::INVALID_ARGUMENT, "INVALID_NAME", {"bad name"});
  grpc::ClientContext context;
  v1::SetAliasRequest two;
  two.mutable_alias()->set_name("tenants/default/aliases/two");
  two.mutable_alias()->add_targets()->set_version("upper");
  two.mutable_alias()->add_targets()->set_version("reverse");
  ExpectError(demo.adapters().SetAlias(&context, two, &client.alias),
              grpc::StatusCode::INVALID_ARGUMENT, "INVALID_SPLIT",
              {"weights", "sum to 0"});

  ASSERT_TRUE(client.DeleteAlias("task").ok());
  ExpectError(client.GetAlias("task"), grpc::StatusCode::NOT_FOUND,
              "ALIAS_NOT_FOUND", {"task"});
  ExpectError(client.DeleteAlias("task"), grpc::StatusCode::NOT_FOUND,
              "ALIAS_NOT_FOUND", {"task"});
  EXPECT_EQ(demo.Stream(TextRequest("task", prompt)).status.error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST(AdapterRpc, RefusesBadRegistrations) {
  DemoServer demo;
  Client client(demo);
  ASSERT_TRUE(demo.Register("reverse").ok());
  const std::string upper = DemoAdapterDir("upper");
  ExpectError(client.Create(CreateRequest("reverse", upper)),
              grpc::StatusCode::ALREADY_EXISTS, "ADAPTER_EXISTS", {"reverse"});
  ExpectError(client.Create(CreateRequest("base", upper)),
              grpc::StatusCode::ALREADY_EXISTS, "ADAPTER_EXISTS", {"base"});
  ExpectError(client.Create(CreateRequest("a", "/etc")),
              grpc::StatusCode::PERMISSION_DENIED, "PATH_NOT_ALLOWED",
              {"/etc"});
  ExpectError(client.Create(CreateRequest("a", DemoDir() + "/../../../etc")),
              grpc::StatusCode::PERMISSION_DENIED, "PATH_NOT_ALLOWED", {"etc"});
  for (const std::string& id :
       {std::string(), std::string("a/b"), std::string("a@1"),
        std::string(".x"), std::string(64, 'a'), std::string("a b")}) {
    ExpectError(client.Create(CreateRequest(id, upper)),
                grpc::StatusCode::INVALID_ARGUMENT, "INVALID_NAME",
                {"adapter_id"});
  }
  ExpectError(client.Create(CreateRequest("a", "")),
              grpc::StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
              {"adapter.source.local_path"});
  EXPECT_EQ(client.Create(CreateRequest("a", DemoDir() + "/none")).error_code(),
            grpc::StatusCode::NOT_FOUND);
  v1::CreateAdapterRequest digest = CreateRequest("a", upper);
  digest.mutable_adapter()->mutable_source()->set_expected_sha256(
      std::string(64, '0'));
  const grpc::Status mismatch = client.Create(digest);
  EXPECT_FALSE(mismatch.ok());
  EXPECT_THAT(mismatch.error_message(), HasSubstr(std::string(64, '0')));
  v1::CreateAdapterRequest tenant = CreateRequest("a", upper);
  tenant.set_parent("tenants/acme");
  ExpectError(client.Create(tenant), grpc::StatusCode::NOT_FOUND,
              "TENANT_NOT_FOUND", {"acme"});
  tenant.set_parent("default");
  ExpectError(client.Create(tenant), grpc::StatusCode::INVALID_ARGUMENT,
              "INVALID_NAME", {"parent", "default"});
  v1::CreateAdapterRequest other_base = CreateRequest("a", upper);
  other_base.mutable_adapter()->set_base_model("llama");
  ExpectError(client.Create(other_base), grpc::StatusCode::FAILED_PRECONDITION,
              "ADAPTER_INCOMPATIBLE", {"llama", "base"});
  v1::CreateAdapterRequest display = CreateRequest("a", upper);
  display.mutable_adapter()->set_display_name(std::string(64, 'x'));
  ExpectError(client.Create(display), grpc::StatusCode::INVALID_ARGUMENT,
              "INVALID_FIELD", {"display_name", "64", "63"});
  ExpectError(client.Get("reverse"), grpc::StatusCode::INVALID_ARGUMENT,
              "INVALID_NAME", {"name", "reverse"});
  v1::UpdateAdapterRequest mask;
  mask.mutable_adapter()->set_name(NameOf("reverse"));
  mask.mutable_update_mask()->add_paths("uid");
  ExpectError(client.Update(mask), grpc::StatusCode::INVALID_ARGUMENT,
              "INVALID_FIELD", {"update_mask", "uid"});
  v1::UpdateAdapterRequest missing;
  missing.mutable_adapter()->set_name(NameOf("missing"));
  missing.mutable_adapter()->mutable_source()->set_local_path(upper);
  ExpectError(client.Update(missing), grpc::StatusCode::NOT_FOUND,
              "ADAPTER_NOT_FOUND", {"missing"});
  EXPECT_THAT(client.ListIds(), ElementsAre("reverse"));
  missing.set_allow_missing(true);
  EXPECT_TRUE(client.Update(missing).ok());
  EXPECT_THAT(client.ListIds(), ElementsAre("missing", "reverse"));
}

TEST(AdapterRpc, LoadsUnloadsAndPins) {
  DemoServer demo;
  ASSERT_TRUE(demo.Register("reverse").ok());
  Client client(demo);
  ASSERT_TRUE(client.Load("reverse", v1::TIER_UNSPECIFIED).ok());
  EXPECT_EQ(client.adapter.tier(), v1::TIER_DEVICE);
  EXPECT_EQ(demo.Load().device_adapters(), 1u);
  ASSERT_TRUE(
      client.Unload("reverse", v1::TIER_HOST, v1::IN_FLIGHT_POLICY_DRAIN).ok());
  EXPECT_EQ(client.adapter.tier(), v1::TIER_HOST);
  EXPECT_EQ(demo.Load().device_adapters(), 0u);
  EXPECT_EQ(demo.Load().device_adapter_bytes(), 0u);
  ASSERT_TRUE(
      client.Unload("reverse", v1::TIER_DISK, v1::IN_FLIGHT_POLICY_DRAIN).ok());
  EXPECT_EQ(client.adapter.tier(), v1::TIER_DISK);
  EXPECT_EQ(demo.Load().host_adapter_bytes(), 0u);

  ASSERT_TRUE(client.Load("reverse", v1::TIER_DEVICE, true).ok());
  EXPECT_TRUE(client.adapter.pinned());
  ExpectError(
      client.Unload("reverse", v1::TIER_DISK, v1::IN_FLIGHT_POLICY_DRAIN),
      grpc::StatusCode::FAILED_PRECONDITION, "ADAPTER_PINNED", {"reverse"});
  v1::UpdateAdapterRequest unpin;
  unpin.mutable_adapter()->set_name(NameOf("reverse"));
  unpin.mutable_update_mask()->add_paths("pinned");
  ASSERT_TRUE(client.Update(unpin).ok());
  EXPECT_FALSE(client.adapter.pinned());
  EXPECT_TRUE(
      client.Unload("reverse", v1::TIER_DISK, v1::IN_FLIGHT_POLICY_DRAIN).ok());
  ExpectError(client.Load("nobody", v1::TIER_DEVICE),
              grpc::StatusCode::NOT_FOUND, "ADAPTER_NOT_FOUND", {"nobody"});
}

// ---- deleting what is in use -----------------------------------------------

// A stream that has begun and goes on until it is read.
struct RunningStream {
  RunningStream(DemoServer& demo, const v1::GenerateRequest& request)
      : reader(demo.inference().Generate(&context, request)) {
    EXPECT_TRUE(reader->Read(&event));
    EXPECT_TRUE(reader->Read(&event));
  }
  // Reads to the end; returns the last finish reason.
  v1::FinishReason Finish() {
    v1::FinishReason reason = v1::FINISH_REASON_UNSPECIFIED;
    do {
      if (event.has_finished()) reason = event.finished().finish_reason();
    } while (reader->Read(&event));
    status = reader->Finish();
    return reason;
  }
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
  v1::GenerateResponse event;
  grpc::Status status;
};

// Enough candidates and logprobs that the stream stalls until it is read.
v1::GenerateRequest HeavyRequest(const std::string& task) {
  v1::GenerateRequest request = LongRequest(task, 900);
  request.mutable_sampling()->set_n(8);
  request.mutable_output()->set_logprobs(32);
  return request;
}

TEST(AdapterRpc, DeleteInUseFollowsThePolicy) {
  DemoServer demo;
  Client client(demo);
  ASSERT_TRUE(demo.Register("reverse").ok());
  {
    RunningStream stream(demo, HeavyRequest("reverse"));
    ExpectError(client.Delete("reverse", v1::IN_FLIGHT_POLICY_FAIL_IF_BUSY),
                grpc::StatusCode::FAILED_PRECONDITION, "ADAPTER_IN_USE",
                {"reverse"});
    // It is as it was.
    EXPECT_EQ(
        demo.Stream(TextRequest("reverse", "Word: parrot\nAnswer:")).text(),
        " torrap");
    EXPECT_EQ(stream.Finish(), v1::FINISH_REASON_LENGTH);
    EXPECT_TRUE(stream.status.ok()) << stream.status.error_message();
  }
  {
    RunningStream stream(demo, HeavyRequest("reverse"));
    // DRAIN refuses new requests at once and lets the running one finish.
    std::future<grpc::Status> deleted = std::async(
        std::launch::async, [&] { return client.Delete("reverse"); });
    for (int i = 0; i < 1000; ++i) {
      const Answer answer = demo.Stream(TextRequest("reverse", "x", 1));
      if (answer.status.error_code() == grpc::StatusCode::NOT_FOUND) break;
      lorikeet::SleepFor(absl::Milliseconds(5));
    }
    EXPECT_EQ(demo.Stream(TextRequest("reverse", "x")).status.error_code(),
              grpc::StatusCode::NOT_FOUND);
    EXPECT_EQ(stream.Finish(), v1::FINISH_REASON_LENGTH);
    const grpc::Status status = deleted.get();
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(demo.Load().device_adapter_bytes(), 0u);
    EXPECT_EQ(demo.Load().host_adapter_bytes(), 0u);
  }
  {
    ASSERT_TRUE(demo.Register("reverse").ok());
    RunningStream stream(demo, HeavyRequest("reverse"));
    v1::DeleteAdapterRequest request;
    request.set_name(NameOf("reverse"));
    request.set_in_flight(v1::IN_FLIGHT_POLICY_ABORT);
    const grpc::Status status = client.Delete(request);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(stream.Finish(), v1::FINISH_REASON_ABORT);
  }
  {
    // A drain that takes too long aborts.
    ASSERT_TRUE(demo.Register("reverse").ok());
    RunningStream stream(demo, HeavyRequest("reverse"));
    v1::DeleteAdapterRequest request;
    request.set_name(NameOf("reverse"));
    request.mutable_drain_timeout()->set_nanos(50000000);
    const grpc::Status status = client.Delete(request);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(stream.Finish(), v1::FINISH_REASON_ABORT);
  }
  {
    // A caller that gives up leaves the adapter as it was.
    ASSERT_TRUE(demo.Register("reverse").ok());
    RunningStream stream(demo, HeavyRequest("reverse"));
    grpc::ClientContext context;
    context.set_deadline(
        absl::ToChronoTime(absl::Now() + absl::Milliseconds(100)));
    v1::DeleteAdapterRequest request;
    request.set_name(NameOf("reverse"));
    google::protobuf::Empty empty;
    EXPECT_EQ(
        demo.adapters().DeleteAdapter(&context, request, &empty).error_code(),
        grpc::StatusCode::DEADLINE_EXCEEDED);
    EXPECT_EQ(stream.Finish(), v1::FINISH_REASON_LENGTH);
    bool usable = false;
    for (int i = 0; i < 1000 && !usable; ++i) {
      usable = demo.Stream(TextRequest("reverse", "x", 1)).status.ok();
      if (!usable) lorikeet::SleepFor(absl::Milliseconds(5));
    }
    EXPECT_TRUE(usable);
  }
}

// ---- uploads ---------------------------------------------------------------

struct UploadChunk {
  std::string file;
  uint64_t offset;
  std::string data;
  std::optional<uint32_t> crc;  // nullopt = the right one
};

std::string ReadDemoFile(const std::string& dir, const std::string& name) {
  PosixFileSystem fs;
  return fs.ReadFile(JoinPath(dir, name), 64 << 20).value();
}

std::vector<UploadChunk> ChunksOf(const std::string& dir, size_t size) {
  std::vector<UploadChunk> chunks;
  for (const char* const name :
       {"adapter_config.json", "adapter_model.safetensors"}) {
    const std::string bytes = ReadDemoFile(dir, name);
    for (size_t at = 0; at < bytes.size(); at += size) {
      chunks.push_back({name, at, bytes.substr(at, size), std::nullopt});
    }
  }
  return chunks;
}

v1::UploadAdapterRequest UploadHeader(const std::string& id) {
  v1::UploadAdapterRequest request;
  request.mutable_header()->set_parent("tenants/default");
  request.mutable_header()->set_adapter_id(id);
  return request;
}

grpc::Status Upload(DemoServer& demo, const v1::UploadAdapterRequest& first,
                    const std::vector<UploadChunk>& chunks,
                    v1::Adapter* adapter) {
  grpc::ClientContext context;
  const auto writer = demo.adapters().UploadAdapter(&context, adapter);
  bool ok = writer->Write(first);
  for (const UploadChunk& chunk : chunks) {
    if (!ok) break;
    v1::UploadAdapterRequest request;
    request.mutable_chunk()->set_file_name(chunk.file);
    request.mutable_chunk()->set_offset(chunk.offset);
    request.mutable_chunk()->set_data(chunk.data);
    request.mutable_chunk()->set_crc32c(chunk.crc.value_or(Crc32c(chunk.data)));
    ok = writer->Write(request);
  }
  writer->WritesDone();
  return writer->Finish();
}

// Folders that uploads left behind.
size_t UploadsLeft(const DemoServer& demo) {
  PosixFileSystem fs;
  const auto names = fs.List(JoinPath(demo.state_dir(), "uploads"));
  return names.ok() ? names->size() : 0;
}

TEST(UploadRpc, RegistersAndUpdatesWhatWasSent) {
  DemoServer demo;
  Client client(demo);
  v1::Adapter adapter;
  grpc::Status status =
      Upload(demo, UploadHeader("caesar"),
             ChunksOf(DemoAdapterDir("caesar"), 10000), &adapter);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(adapter.name(), NameOf("caesar"));
  EXPECT_FALSE(adapter.has_source());
  const std::string prompt = "Word: parrot\nAnswer:";
  EXPECT_EQ(demo.Stream(TextRequest("caesar", prompt)).text(), " sduurw");
  // The digest is that of the same files registered by path.
  ASSERT_TRUE(demo.Register("same", DemoAdapterDir("caesar")).ok());
  ASSERT_TRUE(client.Get(NameOf("same")).ok());
  EXPECT_EQ(client.adapter.revision(), adapter.revision());

  v1::UploadAdapterRequest update;
  update.mutable_update()->mutable_adapter()->set_name(NameOf("caesar"));
  status =
      Upload(demo, update, ChunksOf(DemoDir() + "/adapters-v2/caesar", 1 << 20),
             &adapter);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(adapter.version(), 2u);
  EXPECT_EQ(demo.Stream(TextRequest("caesar", prompt)).text(), " ufwwty");
  EXPECT_EQ(UploadsLeft(demo), 0u);
}

TEST(UploadRpc, RefusesWhatIsWrongAndLeavesNothing) {
  DemoServer demo;
  Client client(demo);
  v1::Adapter adapter;
  const std::vector<UploadChunk> good =
      ChunksOf(DemoAdapterDir("caesar"), 1 << 20);
  ASSERT_EQ(good.size(), 2u);
  const v1::UploadAdapterRequest header = UploadHeader("caesar");
  const grpc::StatusCode invalid = grpc::StatusCode::INVALID_ARGUMENT;

  std::vector<UploadChunk> bad_crc = good;
  bad_crc[1].crc = 1;
  ExpectError(Upload(demo, header, bad_crc, &adapter),
              grpc::StatusCode::DATA_LOSS, "CHECKSUM_MISMATCH",
              {"crc32c", "adapter_model.safetensors"});
  std::vector<UploadChunk> gap = good;
  gap[1].offset = 5;
  ExpectError(Upload(demo, header, gap, &adapter), invalid, "INVALID_FIELD",
              {"chunk.offset", "5"});
  std::vector<UploadChunk> other_file = good;
  other_file[1].file = "../../evil";
  ExpectError(Upload(demo, header, other_file, &adapter), invalid,
              "INVALID_FIELD", {"chunk.file_name", "../../evil"});
  std::vector<UploadChunk> big = good;
  big[1].data = std::string((1 << 20) + 1, 'x');
  ExpectError(Upload(demo, header, big, &adapter), invalid, "INVALID_FIELD",
              {"chunk.data", "1048577", "1048576"});
  ExpectError(Upload(demo, header, {good[0]}, &adapter), invalid,
              "UPLOAD_INCOMPLETE", {"adapter_model.safetensors"});
  ExpectError(Upload(demo, header, {}, &adapter), invalid, "UPLOAD_INCOMPLETE",
              {"adapter_config.json"});
  v1::UploadAdapterRequest chunk_first;
  chunk_first.mutable_chunk()->set_file_name("adapter_config.json");
  ExpectError(Upload(demo, chunk_first, {}, &adapter), invalid, "INVALID_FIELD",
              {"chunk"});
  ExpectError(Upload(demo, v1::UploadAdapterRequest(), {}, &adapter), invalid,
              "INVALID_FIELD", {"part"});
  std::vector<UploadChunk> truncated = good;
  truncated[1].data.resize(truncated[1].data.size() / 2);
  EXPECT_FALSE(Upload(demo, header, truncated, &adapter).ok());
  ExpectError(Upload(demo, UploadHeader("a b"), good, &adapter), invalid,
              "INVALID_NAME", {"adapter_id"});
  v1::UploadAdapterRequest with_path = header;
  with_path.mutable_header()
      ->mutable_adapter()
      ->mutable_source()
      ->set_local_path("/etc");
  ExpectError(Upload(demo, with_path, good, &adapter), invalid, "INVALID_FIELD",
              {"adapter.source"});
  {
    grpc::ClientContext context;
    const auto writer = demo.adapters().UploadAdapter(&context, &adapter);
    ASSERT_TRUE(writer->Write(header));
    context.TryCancel();
    EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_THAT(client.ListIds(), ElementsAre());
  for (int i = 0; i < 1000 && UploadsLeft(demo) > 0; ++i) {
    lorikeet::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_EQ(UploadsLeft(demo), 0u);
}

// ---- watch -----------------------------------------------------------------

TEST(WatchRpc, SendsTheSetAndThenChanges) {
  DemoServer demo;
  Client client(demo);
  ASSERT_TRUE(demo.Register("reverse").ok());
  ASSERT_TRUE(demo.Register("upper").ok());
  grpc::ClientContext context;
  v1::WatchAdaptersRequest request;
  request.set_parent("tenants/default");
  const auto watch = demo.adapters().WatchAdapters(&context, request);
  v1::WatchAdaptersResponse event;
  std::vector<std::string> initial;
  while (watch->Read(&event) &&
         event.kind() == v1::WatchAdaptersResponse::KIND_ADDED) {
    initial.push_back(event.adapter().name());
  }
  EXPECT_THAT(initial, ElementsAre(NameOf("reverse"), NameOf("upper")));
  ASSERT_EQ(event.kind(), v1::WatchAdaptersResponse::KIND_BOOKMARK);
  const uint64_t bookmark = event.sequence();

  ASSERT_TRUE(demo.Register("sort").ok());
  ASSERT_TRUE(client.Delete("upper").ok());
  bool added = false, deleted = false;
  uint64_t last = bookmark;
  while (!(added && deleted) && watch->Read(&event)) {
    EXPECT_GE(event.sequence(), last);
    last = event.sequence();
    if (event.kind() == v1::WatchAdaptersResponse::KIND_ADDED) {
      added |= event.adapter().name() == NameOf("sort");
    } else if (event.kind() == v1::WatchAdaptersResponse::KIND_DELETED) {
      deleted |= event.adapter().name() == NameOf("upper");
    }
  }
  EXPECT_TRUE(added);
  EXPECT_TRUE(deleted);
  context.TryCancel();
  while (watch->Read(&event)) {
  }
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);

  // Another watch goes on where a first one stopped.
  grpc::ClientContext resumed_context;
  request.set_resume_after(bookmark);
  const auto resumed = demo.adapters().WatchAdapters(&resumed_context, request);
  ASSERT_TRUE(resumed->Read(&event));
  EXPECT_GT(event.sequence(), bookmark);
  resumed_context.TryCancel();
  resumed->Finish();

  grpc::ClientContext bad_context;
  request.set_parent("nobody");
  const auto bad = demo.adapters().WatchAdapters(&bad_context, request);
  EXPECT_FALSE(bad->Read(&event));
  EXPECT_EQ(bad->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST(AdapterRpc, ManyCallersChangeAtOnceUnderLoad) {
  DemoServer demo;
  ASSERT_TRUE(demo.Register("reverse").ok());
  std::atomic<bool> stop = false;
  std::vector<std::future<int>> readers;
  for (int i = 0; i < 3; ++i) {
    readers.push_back(std::async(std::launch::async, [&] {
      int answers = 0;
      while (!stop) {
        const Answer answer =
            demo.Stream(TextRequest("reverse", "Word: parrot\nAnswer:"));
        EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
        EXPECT_EQ(answer.status.ok() ? answer.text() : "", " torrap");
        ++answers;
      }
      return answers;
    }));
  }
  std::vector<std::future<void>> writers;
  for (const char* const name : {"upper", "sort", "vowels"}) {
    writers.push_back(std::async(std::launch::async, [&demo, name] {
      Client client(demo);
      for (int i = 0; i < 5; ++i) {
        const grpc::Status status = demo.Register(name);
        EXPECT_TRUE(status.ok()) << status.error_message();
        EXPECT_TRUE(
            demo.Stream(TextRequest(name, "Word: fox\nAnswer:")).status.ok());
        EXPECT_TRUE(client.Load(name, v1::TIER_DEVICE).ok());
        EXPECT_TRUE(client.Delete(name).ok());
      }
    }));
  }
  for (std::future<void>& writer : writers) writer.get();
  stop = true;
  for (std::future<int>& reader : readers) EXPECT_GT(reader.get(), 0);
  EXPECT_THAT(Client(demo).ListIds(), ElementsAre("reverse"));
}

}  // namespace
}  // namespace lorikeet::testing
