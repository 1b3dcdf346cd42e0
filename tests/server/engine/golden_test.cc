// The engine with tiny real models on the CPU: tokens as transformers and peft
// give them, and the same bits however the rows were batched.

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adapters/peft_reader.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/kv_pool.h"
#include "server/engine/engine.h"
#include "tests/server/engine/fake_adapter_store.h"
#include "tests/server/engine/stream_reader.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

using testing::Answer;
using testing::FakeAdapterStore;
using testing::ReadAll;

// What has to be the same bit for bit.
struct Bits {
  std::map<int32_t, std::vector<Token>> tokens;
  std::vector<float> logprobs;  // of tokens and of their alternatives
  std::vector<float> logits;    // of the last prompt position
  std::vector<float> prompt_logprobs;
  friend bool operator==(const Bits&, const Bits&) = default;
};

Bits BitsOf(const Answer& a) {
  EXPECT_TRUE(a.status.ok()) << a.status;
  Bits bits;
  bits.tokens = a.tokens;
  for (const auto& [candidate, all] : a.logprobs) {
    for (const TokenLogprobs& l : all) {
      bits.logprobs.push_back(l.logprob);
      for (const auto& [token, logprob] : l.top) {
        bits.logprobs.push_back(static_cast<float>(token));
        bits.logprobs.push_back(logprob);
      }
    }
  }
  bits.logits = a.started.logits;
  for (const TokenLogprobs& l : a.started.prompt_logprobs) {
    bits.prompt_logprobs.push_back(l.logprob);
  }
  return bits;
}

struct RigOptions {
  int threads = 1;
  int64_t max_num_seqs = 64;
  int64_t max_num_batched_tokens = 512;
  int64_t num_blocks = 512;
  bool prefix_caching = false;
  DType kv_dtype = DType::kF32;
};

// A model with its adapters and an engine.
class Rig {
 public:
  Rig(const std::string& model_dir, const RigOptions& options)
      : pool_(options.threads), ops_(NewCpuOps(pool_)) {
    auto model = Model::Load(fs_, model_dir, *ops_, {});
    CHECK(model.ok());
    model_ = *std::move(model);
    EngineOptions o;
    o.max_num_seqs = options.max_num_seqs;
    o.max_num_batched_tokens = options.max_num_batched_tokens;
    o.prefix_caching = options.prefix_caching;
    o.kv_dtype = options.kv_dtype;
    o.kv_cache_bytes = options.num_blocks *
                       KvPool::BlockBytes(model_->config(), options.kv_dtype);
    o.start_held = true;
    auto engine = Engine::Create(*model_, nullptr, *ops_, store_, clock_, o);
    CHECK(engine.ok());
    engine_ = *std::move(engine);
  }

  void AddAdapter(const std::string& name, const std::string& dir) {
    const BaseWeights base(*model_, *ops_);
    auto weights = ReadPeftAdapter(fs_, dir, model_->config(), {}, {}, &base);
    ASSERT_TRUE(weights.ok()) << weights.status();
    auto slot = (*weights)->Pack(*ops_, &base);
    ASSERT_TRUE(slot.ok()) << slot.status();
    adapters_[name] =
        store_.AddAdapter(name, *slot, (*weights)->features.invocation_tokens);
    store_.Load(adapters_[name]->key);
  }

  // "" = base.
  EngineRequest Request(const std::vector<Token>& prompt,
                        const std::string& adapter, int32_t max_tokens = 24) {
    EngineRequest r;
    r.prompt = prompt;
    r.stop.max_tokens = max_tokens;
    r.output.num_logprobs = 4;
    r.output.return_logits = true;
    if (!adapter.empty()) r.adapters = {{adapters_.at(adapter)}};
    return r;
  }

  // Runs all together.
  std::vector<Answer> Run(const std::vector<EngineRequest>& requests) {
    engine_->SetHeld(true);
    std::vector<std::shared_ptr<TokenStream>> streams;
    for (const EngineRequest& r : requests) {
      auto stream = engine_->Submit(r);
      CHECK(stream.ok());
      streams.push_back(*stream);
    }
    engine_->SetHeld(false);
    std::vector<Answer> answers;
    for (const auto& stream : streams) answers.push_back(ReadAll(stream));
    return answers;
  }
  Answer RunAlone(const EngineRequest& request) {
    return std::move(Run({request})[0]);
  }
  Engine& engine() { return *engine_; }

 private:
  PosixFileSystem fs_;
  SystemClock clock_;
  ThreadPool pool_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Model> model_;
  FakeAdapterStore store_{64};
  std::map<std::string, VersionRef> adapters_;
  std::unique_ptr<Engine> engine_;
};

struct TinyAdapter {
  std::string name, dir, golden;
};
struct TinyModel {
  std::string name, dir, golden;
  std::vector<TinyAdapter> adapters;
};

std::vector<TinyModel> ReadManifest(const std::string& tiny_dir) {
  PosixFileSystem fs;
  const auto text = fs.ReadFile(JoinPath(tiny_dir, "manifest.json"), 16 << 20);
  CHECK(text.ok());
  const auto json = Json::Parse(*text);
  CHECK(json.ok());
  std::vector<TinyModel> models;
  const auto path = [&](const Json& object, const char* key) {
    return JoinPath(tiny_dir, object.Find(key)->AsString());
  };
  for (const Json& m : json->Find("models")->items()) {
    TinyModel model{
        m.Find("name")->AsString(), path(m, "dir"), path(m, "golden"), {}};
    for (const Json& a : m.Find("adapters")->items()) {
      model.adapters.push_back(
          {a.Find("name")->AsString(), path(a, "dir"), path(a, "golden")});
    }
    models.push_back(std::move(model));
  }
  return models;
}

class EngineGoldenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string dir = testing::TinyDir();
    if (dir.empty()) GTEST_SKIP() << "skipped: no shared golden data";
    models_ = ReadManifest(dir);
    ASSERT_FALSE(models_.empty());
  }
  // The model that most equivalences are tested with.
  const TinyModel& model() const {
    for (const TinyModel& m : models_) {
      if (m.name == "llama-gqa-tied") return m;
    }
    CHECK(false);
  }
  std::unique_ptr<Rig> MakeRig(const RigOptions& options = {}) {
    auto rig = std::make_unique<Rig>(model().dir, options);
    for (const TinyAdapter& a : model().adapters) {
      rig->AddAdapter(a.name, a.dir);
    }
    return rig;
  }
  // Prompts of many lengths for the base, every adapter, an aLoRA's invocation
  // in their middle, and sums of adapters.
  std::vector<EngineRequest> MixedRequests(Rig& rig, int32_t max_tokens = 24) {
    std::vector<EngineRequest> requests;
    const auto golden = testing::ReadGolden(model().golden);
    CHECK(golden.ok());
    const auto name = [&](size_t i) {
      return model().adapters[i % model().adapters.size()].name;
    };
    for (size_t i = 0; i < golden->prompts.size(); ++i) {
      const std::vector<Token>& ids = golden->prompts[i].ids;
      requests.push_back(rig.Request(ids, "", max_tokens));
      for (size_t k = 0; k < 6; ++k) {
        requests.push_back(rig.Request(ids, name(i * 6 + k), max_tokens));
      }
      std::vector<Token> invoking = ids;
      invoking.insert(invoking.begin() + static_cast<int64_t>(ids.size() / 2),
                      {7, 401, 33});
      requests.push_back(rig.Request(invoking, "alora", max_tokens));
      // The first ones are plain LoRA.
      requests.push_back(rig.Request(ids, name(i), max_tokens));
      requests.back().adapters[0].scale = 0.5f;
      requests.push_back(rig.Request(ids, name(i), max_tokens));
      requests.back().adapters.push_back(
          rig.Request(ids, name(i + 3), 1).adapters[0]);
      requests.back().adapters[1].scale = -0.25f;
    }
    return requests;
  }
  static std::vector<Bits> AllBits(const std::vector<Answer>& answers) {
    std::vector<Bits> bits;
    for (const Answer& a : answers) bits.push_back(BitsOf(a));
    return bits;
  }
  static void ExpectSame(const std::vector<Bits>& a,
                         const std::vector<Bits>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].tokens, b[i].tokens) << "request " << i;
      EXPECT_TRUE(a[i] == b[i]) << "request " << i;
    }
  }

  std::vector<TinyModel> models_;
};

TEST_F(EngineGoldenTest, BaseAndAllAdaptersInOneBatchGiveTheGoldenTokens) {
  size_t num_compared = 0;
  for (const TinyModel& m : models_) {
    SCOPED_TRACE(m.name);
    Rig rig(m.dir, {.max_num_batched_tokens = 96, .prefix_caching = true});
    std::vector<EngineRequest> requests;
    std::vector<testing::GoldenPrompt> expected;
    std::vector<std::string> names;
    const auto add = [&](const std::string& adapter, const std::string& path) {
      const auto golden = testing::ReadGolden(path);
      ASSERT_TRUE(golden.ok()) << golden.status();
      for (const testing::GoldenPrompt& p : golden->prompts) {
        requests.push_back(rig.Request(p.ids, adapter));
        expected.push_back(p);
        names.push_back(adapter);
      }
    };
    add("", m.golden);
    for (const TinyAdapter& a : m.adapters) {
      rig.AddAdapter(a.name, a.dir);
      add(a.name, a.golden);
    }
    const std::vector<Answer> answers = rig.Run(requests);
    for (size_t i = 0; i < answers.size(); ++i) {
      ASSERT_TRUE(answers[i].status.ok()) << answers[i].status;
      std::vector<Token> tokens = answers[i].tokens.at(0);
      std::vector<Token> golden = expected[i].greedy_ids;
      tokens.resize(static_cast<size_t>(expected[i].safe_steps));
      golden.resize(static_cast<size_t>(expected[i].safe_steps));
      EXPECT_EQ(tokens, golden) << names[i] << " prompt " << i;
      num_compared += golden.size();
    }
  }
  EXPECT_GT(num_compared, 1000u);
}

TEST_F(EngineGoldenTest, PromptLogprobsAreTheGoldenOnes) {
  auto rig = MakeRig({.max_num_batched_tokens = 20});
  const auto golden = testing::ReadGolden(model().golden);
  ASSERT_TRUE(golden.ok());
  int compared = 0;
  for (const testing::GoldenPrompt& p : golden->prompts) {
    if (p.prompt_logprobs.empty()) continue;
    EngineRequest r = rig->Request(p.ids, "", 1);
    r.output.num_prompt_logprobs = 2;
    const Answer a = rig->RunAlone(r);
    ASSERT_EQ(a.started.prompt_logprobs.size(), p.prompt_logprobs.size());
    for (size_t i = 0; i < p.prompt_logprobs.size(); ++i) {
      EXPECT_NEAR(a.started.prompt_logprobs[i].logprob, p.prompt_logprobs[i],
                  1e-3);
      EXPECT_EQ(a.started.prompt_logprobs[i].token, p.ids[i + 1]);
      EXPECT_EQ(a.started.prompt_logprobs[i].top.size(), 2u);
      ++compared;
    }
  }
  EXPECT_GT(compared, 0);
}

TEST_F(EngineGoldenTest, AMixedBatchGivesTheBitsOfEachAlone) {
  auto rig = MakeRig();
  const std::vector<EngineRequest> requests = MixedRequests(*rig);
  std::vector<Bits> alone;
  for (const EngineRequest& r : requests) {
    alone.push_back(BitsOf(rig->RunAlone(r)));
  }
  ExpectSame(AllBits(rig->Run(requests)), alone);
}

TEST_F(EngineGoldenTest, AChunkedPromptGivesTheBitsOfAWholeOne) {
  auto whole = MakeRig({.max_num_batched_tokens = 8192});
  auto chunked = MakeRig({.max_num_batched_tokens = 13});
  ExpectSame(AllBits(chunked->Run(MixedRequests(*chunked))),
             AllBits(whole->Run(MixedRequests(*whole))));
}

TEST_F(EngineGoldenTest, ThePreemptedGetTheBitsOfTheUndisturbed) {
  for (const bool prefix_caching : {false, true}) {
    auto undisturbed = MakeRig();
    auto tight = MakeRig({.max_num_seqs = 30,
                          .num_blocks = 12,
                          .prefix_caching = prefix_caching});
    const auto expected =
        AllBits(undisturbed->Run(MixedRequests(*undisturbed, 60)));
    ExpectSame(AllBits(tight->Run(MixedRequests(*tight, 60))), expected);
    EXPECT_GT(tight->engine().load().scheduler.preemptions, 0);
  }
}

TEST_F(EngineGoldenTest, APrefixHitGivesTheBitsOfAMiss) {
  auto cached = MakeRig({.prefix_caching = true});
  const std::vector<EngineRequest> requests = MixedRequests(*cached);
  const auto miss = AllBits(cached->Run(requests));
  const std::vector<Answer> hits = cached->Run(requests);
  ExpectSame(AllBits(hits), miss);
  int64_t cached_tokens = 0;
  for (const Answer& a : hits) cached_tokens += a.started.cached_tokens;
  EXPECT_GT(cached_tokens, 0);
}

TEST_F(EngineGoldenTest, TwoThreadsGiveTheBitsOfOne) {
  auto one = MakeRig({.threads = 1});
  auto two = MakeRig({.threads = 2});
  ExpectSame(AllBits(two->Run(MixedRequests(*two))),
             AllBits(one->Run(MixedRequests(*one))));
}

TEST_F(EngineGoldenTest, SeededCandidatesAreTheSameAloneAndInABatch) {
  auto rig = MakeRig({.num_blocks = 14, .prefix_caching = true});
  std::vector<EngineRequest> requests = MixedRequests(*rig, 40);
  for (size_t i = 0; i < requests.size(); ++i) {
    SamplingParams& p = requests[i].sampling;
    p.n = i % 5 == 0 ? 3 : 1;
    p.temperature = 0.9f;
    p.top_p = 0.95f;
    p.top_k = 40;
    p.seed = i;
    p.repetition_penalty = i % 3 == 0 ? 1.3f : 1;
    p.frequency_penalty = i % 4 == 0 ? 0.5f : 0;
  }
  std::vector<Bits> alone;
  for (const EngineRequest& r : requests) {
    alone.push_back(BitsOf(rig->RunAlone(r)));
  }
  EXPECT_NE(alone[0].tokens.at(0), alone[0].tokens.at(1));
  ExpectSame(AllBits(rig->Run(requests)), alone);
}

TEST_F(EngineGoldenTest, KvInBF16KeepsTheEquivalences) {
  auto rig = MakeRig({.num_blocks = 400, .kv_dtype = DType::kBF16});
  const std::vector<EngineRequest> requests = MixedRequests(*rig);
  std::vector<Bits> alone;
  for (const EngineRequest& r : requests) {
    alone.push_back(BitsOf(rig->RunAlone(r)));
  }
  ExpectSame(AllBits(rig->Run(requests)), alone);
}

}  // namespace
}  // namespace lorikeet
