// What stands between a directory and a registered adapter, over a real
// connection: golden prompts, bad files, a full disk.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/digest.h"
#include "base/file_system.h"
#include "base/log.h"
#include "base/regex.h"
#include "tests/server/grpc/demo_server.h"
#include "tests/testing/golden.h"
#include "tests/testing/safetensors_writer.h"

namespace lorikeet::testing {
namespace {

namespace stdfs = std::filesystem;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr size_t kChunkBytes = 1 << 20;

std::string ReadAll(const std::string& path) {
  PosixFileSystem fs;
  const auto bytes = fs.ReadFile(path, uint64_t{1} << 30);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  return bytes.ok() ? *bytes : "";
}

// Sends the files of `dir` that an adapter may have.
grpc::Status Upload(DemoServer& demo, const std::string& name,
                    const std::string& dir, v1::Adapter* adapter) {
  grpc::ClientContext context;
  const auto writer = demo.adapters().UploadAdapter(&context, adapter);
  v1::UploadAdapterRequest first;
  first.mutable_header()->set_parent("tenants/default");
  first.mutable_header()->set_adapter_id(name);
  bool writing = writer->Write(first);
  for (const char* file :
       {"adapter_config.json", "adapter_model.safetensors", "golden.jsonl"}) {
    const std::string path = JoinPath(dir, file);
    if (!stdfs::is_regular_file(path)) continue;
    const std::string bytes = ReadAll(path);
    size_t at = 0;
    do {
      v1::UploadAdapterRequest part;
      v1::FileChunk& chunk = *part.mutable_chunk();
      chunk.set_file_name(file);
      chunk.set_offset(at);
      chunk.set_data(bytes.substr(at, kChunkBytes));
      chunk.set_crc32c(Crc32c(chunk.data()));
      writing = writing && writer->Write(part);
      at += kChunkBytes;
    } while (at < bytes.size());
  }
  writer->WritesDone();
  return writer->Finish();
}

size_t CountAdapters(DemoServer& demo) {
  grpc::ClientContext context;
  v1::ListAdaptersRequest request;
  request.set_parent("tenants/default");
  v1::ListAdaptersResponse response;
  EXPECT_TRUE(demo.adapters().ListAdapters(&context, request, &response).ok());
  return static_cast<size_t>(response.total_size());
}

// Nothing of a registration that failed.
void ExpectNothingLeft(const DemoServer& demo, size_t adapters) {
  size_t stored = 0;
  for (const auto& entry :
       stdfs::directory_iterator(demo.state_dir() + "/adapters")) {
    stored += entry.is_directory();
  }
  EXPECT_EQ(stored, adapters);
  EXPECT_TRUE(stdfs::is_empty(demo.state_dir() + "/tmp"));
  EXPECT_TRUE(stdfs::is_empty(demo.state_dir() + "/uploads"));
}

// A copy of a demo adapter with golden prompts.
std::string WithGolden(const std::string& adapter, const std::string& golden) {
  const std::string dir = FreshTempDir("register_golden");
  stdfs::copy(
      DemoAdapterDir(adapter), dir,
      stdfs::copy_options::recursive | stdfs::copy_options::overwrite_existing);
  WriteTestFile(dir + "/golden.jsonl", golden);
  return dir;
}

std::string Line(const std::string& prompt, const std::vector<uint32_t>& ids) {
  Json line = Json::Object();
  line.Set("prompt", prompt);
  Json tokens = Json::Array();
  for (const uint32_t id : ids) tokens.Append(id);
  line.Set("tokens", std::move(tokens));
  return line.Dump() + "\n";
}

// The prompts of demo/goldens.json with their answers, a line each.
std::string GoldenOf(const std::string& task) {
  std::string text;
  for (const DemoCase& c : DemoCases(6)) {
    if (c.task == task) text += Line(c.prompt, c.ids);
  }
  return text;
}

class GoldenRpcTest : public ::testing::Test {
 protected:
  GoldenRpcTest()
      : demo_([](ServerOptions* o) {
          o->adapter_roots.push_back(::testing::TempDir());
        }) {}
  DemoServer demo_;
};

TEST_F(GoldenRpcTest, AnAdapterThatKeepsItsGoldensIsRegistered) {
  const std::string dir = WithGolden("reverse", GoldenOf("reverse"));
  EXPECT_TRUE(demo_.Register("by-path", dir).ok());
  v1::Adapter adapter;
  const grpc::Status status = Upload(demo_, "by-upload", dir, &adapter);
  EXPECT_TRUE(status.ok()) << status.error_message();
  // Their content is the same as without goldens.
  ASSERT_TRUE(demo_.Register("plain", DemoAdapterDir("reverse")).ok());
  ExpectNothingLeft(demo_, 1);
  EXPECT_EQ(demo_.Load().device_adapters(), 0u);  // the trial is gone
}

TEST_F(GoldenRpcTest, AMismatchIsRefusedNamingLineExpectedAndGot) {
  std::vector<DemoCase> cases;
  for (const DemoCase& c : DemoCases(3)) {
    if (c.task == "reverse") cases.push_back(c);
  }
  ASSERT_GE(cases.size(), 2u);
  std::vector<uint32_t> wrong = cases[1].ids;
  wrong[1] += 1;
  const std::string dir =
      WithGolden("reverse", Line(cases[0].prompt, cases[0].ids) +
                                Line(cases[1].prompt, wrong));
  const std::string message =
      absl::StrCat("golden.jsonl line 2: token 1 is ", cases[1].ids[1],
                   ", expected ", wrong[1]);
  v1::Adapter adapter;
  for (const grpc::Status& status :
       {demo_.Register("a", dir), Upload(demo_, "a", dir, &adapter)}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(DetailsOf(status).reason, "GOLDEN_MISMATCH");
    EXPECT_THAT(status.error_message(), HasSubstr(message));
  }
  EXPECT_EQ(CountAdapters(demo_), 0u);
  ExpectNothingLeft(demo_, 0);
}

TEST_F(GoldenRpcTest, GoldensOfAnotherAdapterAreRefused) {
  const grpc::Status status =
      demo_.Register("a", WithGolden("upper", GoldenOf("reverse")));
  EXPECT_EQ(DetailsOf(status).reason, "GOLDEN_MISMATCH");
  EXPECT_EQ(CountAdapters(demo_), 0u);
}

TEST_F(GoldenRpcTest, AGoldenFileThatIsNoneIsRefused) {
  const grpc::Status status =
      demo_.Register("a", WithGolden("upper", "{\"prompt\": \"x\"}\n"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailsOf(status).reason, "GOLDEN_INVALID");
  EXPECT_EQ(CountAdapters(demo_), 0u);
}

TEST_F(GoldenRpcTest, AnUpdateThatBreaksItsGoldensLeavesTheOldVersion) {
  ASSERT_TRUE(demo_.Register("a", DemoAdapterDir("upper")).ok());
  grpc::ClientContext context;
  v1::UpdateAdapterRequest request;
  request.mutable_adapter()->set_name("tenants/default/adapters/a");
  request.mutable_adapter()->mutable_source()->set_local_path(
      WithGolden("reverse", GoldenOf("upper")));
  v1::Adapter adapter;
  EXPECT_EQ(
      DetailsOf(demo_.adapters().UpdateAdapter(&context, request, &adapter))
          .reason,
      "GOLDEN_MISMATCH");
  EXPECT_EQ(demo_.Stream(TextRequest("a", "Word: fox\nAnswer:"))
                .started.adapter_version(),
            1u);
}

// Logits and tokens that PEFT gave, through the engine.
TEST(GoldenPeftTest, LogitsOfPeftPassAndOthersDoNot) {
  if (TinyDir().empty()) GTEST_SKIP() << "skipped: no shared golden data";
  const std::string model = "llama-gqa-tied";
  DemoServer demo([&](ServerOptions* o) {
    o->model_dir = TinyDir() + "/models/" + model;
    o->adapter_roots = {::testing::TempDir()};
  });
  const std::string name = "rslora-patterns";
  const std::string source = absl::StrCat(TinyDir(), "/adapters/", model);
  const auto golden = ReadGolden(
      absl::StrCat(TinyDir(), "/golden/", model, "/", name, ".safetensors"));
  ASSERT_TRUE(golden.ok()) << golden.status();
  const GoldenPrompt& prompt = golden->prompts[0];
  Json line = Json::Object();
  Json ids = Json::Array(), tokens = Json::Array(), logits = Json::Array();
  for (const Token id : prompt.ids) ids.Append(id);
  for (int64_t i = 0; i < prompt.safe_steps; ++i) {
    tokens.Append(prompt.greedy_ids[static_cast<size_t>(i)]);
  }
  const float* row = prompt.logits_row(prompt.logit_rows - 1, golden->vocab);
  for (int64_t i = 0; i < golden->vocab; ++i) logits.Append(row[i]);
  line.Set("token_ids", std::move(ids));
  line.Set("tokens", std::move(tokens));
  line.Set("logits", logits);
  line.Set("tolerance", 2e-4);

  const std::string dir = FreshTempDir("peft_golden");
  stdfs::copy(
      source + "/" + name, dir,
      stdfs::copy_options::recursive | stdfs::copy_options::overwrite_existing);
  WriteTestFile(dir + "/golden.jsonl", line.Dump() + "\n");
  const grpc::Status good = demo.Register("good", dir);
  EXPECT_TRUE(good.ok()) << good.error_message();

  Json off = Json::Array();
  for (int64_t i = 0; i < golden->vocab; ++i) {
    off.Append(i == 7 ? row[i] + 0.01 * golden->logits_rms : row[i]);
  }
  line.Set("logits", std::move(off));
  WriteTestFile(dir + "/golden.jsonl", line.Dump() + "\n");
  const grpc::Status bad = demo.Register("bad", dir);
  EXPECT_EQ(DetailsOf(bad).reason, "GOLDEN_MISMATCH");
  EXPECT_THAT(bad.error_message(), HasSubstr("line 1: logit 7 is "));
}

// ---- bad files --------------------------------------------------------------

TEST(BadAdapterRpcTest, EveryUploadIsRefusedWithItsDocumentedCode) {
  if (TinyDir().empty()) GTEST_SKIP() << "skipped: no shared golden data";
  SetLogLevel(LogLevel::kOff);
  DemoServer demo([](ServerOptions* o) {
    o->model_dir = TinyDir() + "/models/llama-gqa-tied";
  });
  // docs/errors.md: code and reason belong together.
  const std::set<std::pair<grpc::StatusCode, std::string>> documented = {
      {grpc::StatusCode::INVALID_ARGUMENT, "ADAPTER_INVALID"},
      {grpc::StatusCode::INVALID_ARGUMENT, "UPLOAD_INCOMPLETE"},
      {grpc::StatusCode::NOT_FOUND, "ADAPTER_INVALID"},
      {grpc::StatusCode::DATA_LOSS, "ADAPTER_INVALID"},
      {grpc::StatusCode::UNIMPLEMENTED, "ADAPTER_UNSUPPORTED"},
  };
  const auto cases =
      Json::Parse(ReadAll(TinyDir() + "/bad_adapters/cases.json"));
  ASSERT_TRUE(cases.ok());
  int refused = 0;
  for (const Json& bad : cases->Find("cases")->items()) {
    const std::string& name = bad.Find("name")->AsString();
    SCOPED_TRACE(name);
    v1::Adapter adapter;
    const grpc::Status status = Upload(
        demo, "a", JoinPath(TinyDir(), bad.Find("dir")->AsString()), &adapter);
    if (status.ok()) {
      EXPECT_EQ(bad.Find("policy")->AsString(), "refuse_or_correct");
      grpc::ClientContext context;
      v1::DeleteAdapterRequest request;
      request.set_name("tenants/default/adapters/a");
      google::protobuf::Empty empty;
      EXPECT_TRUE(
          demo.adapters().DeleteAdapter(&context, request, &empty).ok());
      continue;
    }
    ++refused;
    EXPECT_TRUE(
        documented.contains({status.error_code(), DetailsOf(status).reason}))
        << status.error_code() << " " << DetailsOf(status).reason << ": "
        << status.error_message();
    if (DetailsOf(status).reason == "UPLOAD_INCOMPLETE") continue;
    for (const Json& pattern : bad.Find("must_match")->items()) {
      const auto regex = Regex::Compile("(?i)" + pattern.AsString());
      ASSERT_TRUE(regex.ok());
      const auto found = regex->Search(status.error_message());
      EXPECT_TRUE(found.ok() && found->has_value())
          << status.error_message() << " against " << pattern.AsString();
    }
  }
  EXPECT_GT(refused, 90);
  EXPECT_EQ(CountAdapters(demo), 0u);
  ExpectNothingLeft(demo, 0);
}

TEST(BadAdapterRpcTest, ABadDirectoryIsRefusedAsItsUploadIs) {
  if (TinyDir().empty()) GTEST_SKIP() << "skipped: no shared golden data";
  SetLogLevel(LogLevel::kOff);
  DemoServer demo([](ServerOptions* o) {
    o->model_dir = TinyDir() + "/models/llama-gqa-tied";
    o->adapter_roots = {TinyDir()};
  });
  for (const char* name : {"nan", "inf", "config-missing", "duplicate-name"}) {
    const grpc::Status status =
        demo.Register("a", absl::StrCat(TinyDir(), "/bad_adapters/", name));
    EXPECT_EQ(DetailsOf(status).reason, "ADAPTER_INVALID")
        << name << ": " << status.error_message();
  }
  ExpectNothingLeft(demo, 0);
}

// ---- a full disk ------------------------------------------------------------

// A small file system of its own, for as long as it lives.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& options) {
    path_ = FreshTempDir("register_disk");
    ok_ = ::mount("tmpfs", path_.c_str(), "tmpfs", 0, options.c_str()) == 0;
    if (!ok_) error_ = std::strerror(errno);
  }
  ~SmallDisk() {
    if (ok_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  bool ok() const { return ok_; }
  const std::string& error() const { return error_; }
  const std::string& path() const { return path_; }

  // Leaves `bytes` free.
  void FillUpTo(uintmax_t bytes) {
    std::ofstream out(path_ + "/filler", std::ios::binary | std::ios::app);
    const std::string page(4096, 'x');
    while (stdfs::space(path_).available > bytes && out.good()) {
      out << page << std::flush;
    }
  }
  void Empty() { stdfs::remove(path_ + "/filler"); }

 private:
  std::string path_, error_;
  bool ok_ = false;
};

TEST(FullDiskRpcTest, IsSaidAndLeavesNothingHalfRegistered) {
  SmallDisk disk("size=4m");
  if (!disk.ok()) GTEST_SKIP() << "skipped: no mount: " << disk.error();
  SetLogLevel(LogLevel::kOff);
  DemoServer demo(
      [&](ServerOptions* o) { o->state_dir = disk.path() + "/state"; });
  ASSERT_TRUE(demo.Register("upper").ok());
  const std::string state = disk.path() + "/state";
  const auto stored = [&] {
    std::set<std::string> names;
    for (const char* folder : {"adapters", "tmp", "uploads"}) {
      for (const auto& e : stdfs::directory_iterator(state + "/" + folder)) {
        names.insert(
            absl::StrCat(folder, "/", std::string(e.path().filename())));
      }
    }
    return absl::StrJoin(names, " ");
  };
  const std::string before = stored();
  // "sort" has 300 KiB: from no room at all to almost enough.
  for (const uintmax_t room : {0u, 4096u, 65536u, 200u << 10, 296u << 10}) {
    SCOPED_TRACE(room);
    disk.FillUpTo(room);
    v1::Adapter adapter;
    for (const grpc::Status& status :
         {demo.Register("sort"),
          Upload(demo, "sort", DemoAdapterDir("sort"), &adapter)}) {
      EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED)
          << status.error_message();
      EXPECT_EQ(DetailsOf(status).reason, "DISK_FULL")
          << status.error_message();
      EXPECT_EQ(stored(), before);
      EXPECT_EQ(CountAdapters(demo), 1u);
    }
    // Who is there still answers.
    EXPECT_TRUE(
        demo.Stream(TextRequest("upper", "Word: fox\nAnswer:")).status.ok());
    disk.Empty();
  }
  EXPECT_TRUE(demo.Register("sort").ok());
  EXPECT_EQ(CountAdapters(demo), 2u);
}

TEST(ReadOnlyDiskTest, IsRefusedByName) {
  SmallDisk disk("size=4m");
  if (!disk.ok()) GTEST_SKIP() << "skipped: no mount: " << disk.error();
  SetLogLevel(LogLevel::kOff);
  ServerOptions options;
  options.model_dir = DemoDir() + "/base";
  options.grpc_port = 0;
  options.threads = 1;
  options.kv_cache_bytes = 64 << 20;
  options.state_dir = disk.path();
  ASSERT_TRUE(Server::Start(options).ok());
  ASSERT_EQ(::mount("tmpfs", disk.path().c_str(), "tmpfs",
                    MS_REMOUNT | MS_RDONLY, nullptr),
            0)
      << std::strerror(errno);
  const auto server = Server::Start(options);
  EXPECT_EQ(server.status().code(), absl::StatusCode::kFailedPrecondition)
      << server.status();
  EXPECT_THAT(std::string(server.status().message()),
              HasSubstr("cannot be written"));
}

}  // namespace
}  // namespace lorikeet::testing
