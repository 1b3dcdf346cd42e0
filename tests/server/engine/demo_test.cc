// The engine with the real adapter store and tokenizer, on the demo's model and
// adapters: many more adapters than slots, and every answer is the golden one.

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/thread_pool.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_ops.h"
#include "server/engine/engine.h"
#include "tests/server/engine/stream_reader.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

using testing::Answer;
using testing::ReadAll;

struct Case {
  std::string adapter;  // "" = base
  std::vector<Token> prompt;
  std::string prompt_text;
  int32_t max_tokens = 0;
  std::string text;
  std::string reason;
};

class EngineDemoTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string demo = JoinPath(testing::SourceDir(), "demo");
    auto model = Model::Load(fs_, JoinPath(demo, "base"), *ops_, {});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    auto tokenizer = Tokenizer::Load(fs_, JoinPath(demo, "base"));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    AdapterStoreOptions options;
    options.host_bytes = int64_t{64} << 20;
    options.device_bytes = int64_t{64} << 20;
    options.max_device_adapters = 2;
    options.loader_threads = 2;
    auto store = AdapterStore::Open(fs_, clock_, *model_, *ops_, options);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    ReadCases(demo);
    EngineOptions engine_options;
    engine_options.start_held = true;
    auto engine = Engine::Create(*model_, tokenizer_.get(), *ops_, *store_,
                                 clock_, engine_options);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  void ReadCases(const std::string& demo) {
    const auto text = fs_.ReadFile(JoinPath(demo, "goldens.json"), 16 << 20);
    ASSERT_TRUE(text.ok()) << text.status();
    const auto json = Json::Parse(*text);
    ASSERT_TRUE(json.ok()) << json.status();
    AddCases("", *json->Find("base"));
    for (const Json& adapter : json->Find("adapters")->items()) {
      AdapterStore::RegisterRequest r;
      r.name = adapter.Find("name")->AsString();
      r.path = JoinPath(demo, adapter.Find("dir")->AsString());
      r.trusted_path = true;
      r.mode = AdapterStore::RegisterRequest::Mode::kCreateOrUpdate;
      const auto info = store_->Register(r);
      ASSERT_TRUE(info.ok()) << info.status();
      AddCases(r.name, adapter);
    }
  }
  void AddCases(const std::string& adapter, const Json& json) {
    for (const Json& c : json.Find("cases")->items()) {
      Case out;
      out.adapter = adapter;
      for (const Json& id : c.Find("prompt_ids")->items()) {
        out.prompt.push_back(static_cast<Token>(id.AsInt()));
      }
      out.prompt_text = c.Find("prompt")->AsString();
      out.max_tokens = static_cast<int32_t>(c.Find("max_tokens")->AsInt());
      out.text = c.Find("output_text")->AsString();
      out.reason = c.Find("finish_reason")->AsString();
      cases_.push_back(std::move(out));
    }
  }
  EngineRequest Request(const Case& c) {
    EngineRequest r;
    r.prompt = c.prompt;
    r.stop.max_tokens = c.max_tokens;
    r.stop.eos_tokens = model_->eos_tokens();
    if (!c.adapter.empty()) {
      const auto version = store_->Resolve({.name = c.adapter});
      EXPECT_TRUE(version.ok()) << version.status();
      r.adapters = {{*version}};
    }
    return r;
  }

  PosixFileSystem fs_;
  SystemClock clock_;
  ThreadPool pool_{1};
  std::unique_ptr<Ops> ops_ = NewCpuOps(pool_);
  std::unique_ptr<Model> model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<AdapterStore> store_;
  std::vector<Case> cases_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineDemoTest, AllAdaptersTakeTurnsInTwoSlotsAndAnswerRight) {
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (const Case& c : cases_) {
    auto stream = engine_->Submit(Request(c));
    ASSERT_TRUE(stream.ok()) << stream.status();
    streams.push_back(*stream);
  }
  engine_->SetHeld(false);
  for (size_t i = 0; i < cases_.size(); ++i) {
    const Answer a = ReadAll(streams[i]);
    ASSERT_TRUE(a.status.ok()) << a.status;
    EXPECT_EQ(a.text.at(0), cases_[i].text) << cases_[i].adapter;
    EXPECT_EQ(Name(a.finished.at(0).reason), cases_[i].reason);
  }
  EXPECT_GT(store_->GetResidency().evictions, 0);
  for (const AdapterInfo& info : store_->ListAll("default")) {
    EXPECT_EQ(info.active_requests, 0) << info.name;
  }
}

TEST_F(EngineDemoTest, EchoPutsThePromptInFront) {
  engine_->SetHeld(false);
  EngineRequest r = Request(cases_[0]);
  r.output.echo = true;
  auto stream = engine_->Submit(std::move(r));
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_EQ(ReadAll(*stream).text.at(0),
            cases_[0].prompt_text + cases_[0].text);
}

TEST_F(EngineDemoTest, AnAdapterCanBeUnloadedWhenItsLastRequestHasEnded) {
  engine_->SetHeld(false);
  for (const Case& c : cases_) {
    if (c.adapter.empty()) continue;
    auto stream = engine_->Submit(Request(c));
    ASSERT_TRUE(stream.ok()) << stream.status();
    EXPECT_TRUE(ReadAll(*stream).status.ok());
    const auto freed = store_->UnloadTo("default", c.adapter, Tier::kDisk);
    ASSERT_TRUE(freed.ok()) << freed.status();
    EXPECT_GT(*freed, 0);
  }
}

}  // namespace
}  // namespace lorikeet
