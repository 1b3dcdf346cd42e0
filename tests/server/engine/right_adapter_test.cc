// The right adapter, always: requests for adapters that each make the model say
// something of their own, while adapters are registered, updated, retired,
// deleted, unloaded and aliases move. Every answer has to be the one that the
// version it was given gives alone.
//
// The same file is built again with a fault seeded in one source (see
// CMakeLists.txt); then the test is that wrong answers are noticed.
// $LORIKEET_REQUESTS sets the number of requests.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "adapters/adapter_store.h"
#include "adapters/peft_reader.h"
#include "base/background_queue.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/kv_pool.h"
#include "server/engine/engine.h"
#include "tests/server/engine/stream_reader.h"
#include "tests/testing/golden.h"
#include "tests/testing/safetensors_writer.h"

namespace lorikeet {
namespace {

using testing::FreshTempDir;
using testing::ReadAll;
using testing::TestTensor;
using testing::WriteTestFile;

#ifdef LORIKEET_SEEDED_FAULT
constexpr bool kIsSeeded = true;
constexpr char kVariant[] = LORIKEET_SEEDED_FAULT;
#else
constexpr bool kIsSeeded = false;
constexpr char kVariant[] = "none";
#endif

// Of this build: the others may run beside it.
std::string TempDirFor(absl::string_view what) {
  return FreshTempDir(absl::StrCat("right_", kVariant, "_", what));
}

constexpr int kContents = 8;  // signatures
constexpr int kHotNames = 5;  // h0.. are updated and deleted
constexpr int kAliases = 3;   // t0.. move between p0@1 and p1@2
constexpr int kPrompts = 3;
constexpr size_t kPromptTokens =
    40;  // more than one block: prefixes are shared
constexpr int kAnswerTokens = 4;
constexpr int kClients = 3;
constexpr int kBurst = 8;  // requests of a client at once
constexpr int64_t kDefaultRequests = 6000;
constexpr int64_t kMinOperations = 30;  // a slow disk makes a longer test
// Between two operations. An unpaused one would leave no time for requests.
constexpr absl::Duration kPause = absl::Milliseconds(3);

constexpr int64_t kHidden = 32, kIntermediate = 64, kVocab = 128, kLayers = 2;

constexpr char kConfig[] = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "vocab_size": 128, "hidden_size": 32, "intermediate_size": 64,
  "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
  "head_dim": 16, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "hidden_act": "silu", "torch_dtype": "float32",
  "tie_word_embeddings": false, "eos_token_id": 0, "bos_token_id": 1})";

int64_t NumRequests() {
  const char* text = std::getenv("LORIKEET_REQUESTS");
  int64_t requests = 0;
  return text != nullptr && absl::SimpleAtoi(text, &requests)
             ? requests
             : kDefaultRequests;
}

TestTensor Random(Rng* rng, const std::string& name, int64_t rows,
                  int64_t cols) {
  std::vector<float> values;
  for (int64_t i = 0; i < rows * cols; ++i) {
    values.push_back(static_cast<float>(rng->Normal()));
  }
  return testing::MakeTensor(name, DType::kF32, {rows, cols}, values);
}

// Strong enough to change what is said.
std::string WriteSignature(int content) {
  Rng rng(1000 + static_cast<uint64_t>(content));
  std::vector<TestTensor> tensors;
  const struct {
    const char* name;
    int64_t out, in;
  } modules[] = {{"self_attn.q_proj", kHidden, kHidden},
                 {"self_attn.v_proj", 16, kHidden},
                 {"mlp.down_proj", kHidden, kIntermediate}};
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    for (const auto& m : modules) {
      const std::string name =
          absl::StrCat("base_model.model.model.layers.", layer, ".", m.name);
      tensors.push_back(Random(&rng, name + ".lora_A.weight", 2, m.in));
      tensors.push_back(Random(&rng, name + ".lora_B.weight", m.out, 2));
    }
  }
  const std::string dir = TempDirFor(absl::StrCat("signature", content));
  WriteTestFile(JoinPath(dir, kAdapterConfigFile),
                R"({"peft_type": "LORA", "r": 2, "lora_alpha": 2,
                    "target_modules": ["q_proj", "v_proj", "down_proj"]})");
  WriteTestFile(JoinPath(dir, kAdapterModelFile),
                testing::SafetensorsBytes(tensors));
  return dir;
}

class RightAdapterTest : public ::testing::Test {
 protected:
  using Tokens = std::vector<Token>;

  struct Report {
    int64_t served = 0, wrong = 0, refused = 0, operations = 0;
    absl::Duration took;
  };

  RightAdapterTest() : pool_(1), ops_(NewCpuOps(pool_)) {
    SetLogLevel(LogLevel::kOff);
    const std::string dir = TempDirFor("model");
    WriteTestFile(dir + "/config.json", kConfig);
    ModelOptions options;
    options.dummy_weights = true;
    auto model = Model::Load(fs_, dir, *ops_, options);
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    OpenStore();
    EngineOptions e;
    e.max_num_seqs = 16;
    e.max_num_batched_tokens = 128;
    e.kv_cache_bytes = 96 * KvPool::BlockBytes(model_->config(), DType::kF32);
    auto engine = Engine::Create(*model_, nullptr, *ops_, *store_, clock_, e);
    EXPECT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    Rng rng(7);
    for (int p = 0; p < kPrompts; ++p) {
      Tokens prompt;
      for (size_t i = 0; i < kPromptTokens; ++i) {
        prompt.push_back(static_cast<Token>(2 + rng.Below(kVocab - 2)));
      }
      prompts_.push_back(std::move(prompt));
    }
  }
  ~RightAdapterTest() override { SetLogLevel(LogLevel::kInfo); }

  void OpenStore() {
    AdapterStoreOptions options;
    options.state_dir = TempDirFor("state");
    options.host_bytes = 1 << 20;
    options.device_bytes = 1 << 20;
    // Fewer than are asked for at once; but a stale slot keeps its place.
    options.max_device_adapters = kIsSeeded ? 32 : 4;
    options.version_retention = 3;
    auto store = AdapterStore::Open(fs_, clock_, *model_, *ops_, options);
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  absl::Status Register(const std::string& name, int content) {
    AdapterStore::RegisterRequest r;
    r.name = name;
    r.path = sources_[static_cast<size_t>(content)];
    r.trusted_path = true;
    r.mode = AdapterStore::RegisterRequest::Mode::kCreateOrUpdate;
    return store_->Register(r).status();
  }
  absl::StatusOr<std::shared_ptr<TokenStream>> Submit(VersionRef version,
                                                      int prompt) {
    EngineRequest r;
    r.prompt = prompts_[static_cast<size_t>(prompt)];
    r.adapters = {{std::move(version), 1}};
    r.stop.max_tokens = kAnswerTokens;
    r.output.text = false;
    return engine_->Submit(std::move(r));
  }
  static Tokens AnswerOf(const std::shared_ptr<TokenStream>& stream) {
    testing::Answer answer = ReadAll(stream);
    return answer.status.ok() ? answer.tokens[0] : Tokens();
  }

  // Learns what each content says alone, one request at a time and with
  // nothing in any cache.
  void LearnSignatures() {
    for (int content = 0; content < kContents; ++content) {
      sources_.push_back(WriteSignature(content));
      content_of_[*DigestOfAdapter(fs_, sources_.back(), PeftLimits())] =
          content;
      const std::string name = absl::StrCat("s", content);
      ASSERT_TRUE(Register(name, content).ok());
      for (int p = 0; p < kPrompts; ++p) {
        engine_->FlushPrefixCache();
        AdapterRef ref;
        ref.name = name;
        auto version = store_->Resolve(ref);
        ASSERT_TRUE(version.ok());
        const auto stream = Submit(*std::move(version), p);
        ASSERT_TRUE(stream.ok()) << stream.status();
        const Tokens answer = AnswerOf(*stream);
        ASSERT_EQ(answer.size(), size_t{kAnswerTokens});
        signatures_[{content, p}] = answer;
      }
      const bool is_deleted = store_->FinishDelete("default", name).ok();
      ASSERT_TRUE(is_deleted || kIsSeeded);
    }
    engine_->FlushPrefixCache();
    for (int p = 0; p < kPrompts; ++p) {
      std::set<Tokens> different;
      for (int c = 0; c < kContents; ++c) different.insert(signatures_[{c, p}]);
      ASSERT_EQ(different.size(), size_t{kContents}) << "prompt " << p;
    }
  }

  void RegisterAll() {
    for (int i = 0; i < kHotNames; ++i) {
      ASSERT_TRUE(Register(absl::StrCat("h", i), i).ok());
    }
    // p0@1, p0@2, p1@1, p1@2: contents 4 to 7.
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(Register(absl::StrCat("p", i / 2), 4 + i).ok());
    }
    for (int i = 0; i < kAliases; ++i) Move(i, /*to_second=*/false);
  }
  void Move(int alias, bool to_second) {
    ASSERT_TRUE(store_
                    ->SetAlias("default", absl::StrCat("t", alias),
                               *AdapterRef::Parse(to_second ? "p1@2" : "p0@1"),
                               {})
                    .ok());
  }

  // One operation, of which many meet a request and are refused.
  void Operate(Rng* rng) {
    const std::string hot = absl::StrCat("h", rng->Below(kHotNames));
    const int content = static_cast<int>(rng->Below(kContents));
    switch (rng->Below(6)) {
      case 0:
      case 1:
        Move(static_cast<int>(rng->Below(kAliases)), rng->Below(2) == 1);
        return;
      case 2:
      case 3:
        Register(hot, content).IgnoreError();
        return;
      case 4:
        store_->UnloadTo("default", hot, Tier::kDisk).status().IgnoreError();
        return;
      default:
        if (!store_->FinishDelete("default", hot).ok()) return;
        ASSERT_TRUE(Register(hot, content).ok());
    }
  }

  // Whether an alias may point there.
  static bool IsLegal(const AdapterRef& ref, const AdapterKey& key) {
    if (ref.name[0] != 't') return key.name == ref.name;
    return (key.name == "p0" && key.version == 1) ||
           (key.name == "p1" && key.version == 2);
  }

  void Client(uint64_t seed, int64_t requests, Report* report, Mutex* mu) {
    struct Asked {
      int content = 0, prompt = 0;
      std::shared_ptr<TokenStream> stream;
    };
    Rng rng(seed);
    Report sum;
    while (sum.served + sum.refused < requests ||
           operations_ < kMinOperations) {
      std::vector<Asked> burst;
      for (int i = 0; i < kBurst; ++i) {
        AdapterRef ref;
        ref.name = rng.Below(2) == 0 ? absl::StrCat("h", rng.Below(kHotNames))
                                     : absl::StrCat("t", rng.Below(kAliases));
        auto route = store_->FindRoute(ref, absl::StrCat(rng.NextUint32()));
        if (!route.ok()) {  // deleted just now
          ++sum.refused;
          continue;
        }
        const AdapterKey key = route->version->key;
        if (!IsLegal(ref, key)) ++sum.wrong;
        Asked asked;
        asked.content = content_of_.at(key.digest);
        asked.prompt = static_cast<int>(rng.Below(kPrompts));
        auto stream = Submit(std::move(route->version), asked.prompt);
        ASSERT_TRUE(stream.ok()) << stream.status();
        asked.stream = *std::move(stream);
        burst.push_back(std::move(asked));
      }
      for (const Asked& asked : burst) {
        const Tokens answer = AnswerOf(asked.stream);
        ++sum.served;
        if (answer != signatures_.at({asked.content, asked.prompt})) {
          ++sum.wrong;
        }
      }
    }
    MutexLock lock(mu);
    report->served += sum.served;
    report->wrong += sum.wrong;
    report->refused += sum.refused;
  }

  Report Run(int64_t requests) {
    Report report;
    Mutex mu;
    std::atomic<int> running{kClients};
    const absl::Duration start = clock_.Now();
    {
      std::vector<std::unique_ptr<BackgroundThread>> threads;
      for (uint64_t i = 0; i < kClients; ++i) {
        threads.push_back(std::make_unique<BackgroundThread>("client", [&, i] {
          Client(100 + i, requests / kClients, &report, &mu);
          --running;
        }));
      }
      threads.push_back(std::make_unique<BackgroundThread>("operator", [&] {
        Rng rng(99);
        while (running > 0) {
          Operate(&rng);
          ++operations_;
          lorikeet::SleepFor(kPause);
        }
      }));
    }
    report.took = clock_.Now() - start;
    report.operations = operations_;
    std::printf(
        "%ld requests, %ld refused, %ld wrong; %ld operations in %s, %.0f a "
        "second; %ld loads, %ld evictions\n",
        static_cast<long>(report.served), static_cast<long>(report.refused),
        static_cast<long>(report.wrong), static_cast<long>(report.operations),
        absl::FormatDuration(report.took).c_str(),
        static_cast<double>(report.operations) /
            absl::ToDoubleSeconds(report.took),
        static_cast<long>(store_->GetResidency().loads),
        static_cast<long>(store_->GetResidency().evictions));
    return report;
  }

  PosixFileSystem fs_;
  SystemClock clock_;
  ThreadPool pool_;
  const std::unique_ptr<Ops> ops_;
  std::unique_ptr<Model> model_;
  std::atomic<int64_t> operations_{0};
  std::vector<std::string> sources_;  // a directory per content
  absl::flat_hash_map<Digest, int> content_of_;
  std::vector<Tokens> prompts_;
  absl::flat_hash_map<std::pair<int, int>, Tokens> signatures_;
  std::unique_ptr<AdapterStore> store_;
  std::unique_ptr<Engine> engine_;
};

#ifndef LORIKEET_SEEDED_FAULT

TEST_F(RightAdapterTest, EveryAnswerIsOfTheVersionThatWasGiven) {
  LearnSignatures();
  RegisterAll();
  const Report report = Run(NumRequests());
  EXPECT_EQ(report.wrong, 0);
  EXPECT_GE(report.served + report.refused, NumRequests() - kClients);
  EXPECT_GT(report.served, NumRequests() / 2);
  EXPECT_GE(report.operations, kMinOperations);
  EXPECT_GT(store_->GetResidency().evictions, 0);
}

#else

TEST_F(RightAdapterTest, ASeededFaultIsNoticed) {
  LearnSignatures();
  RegisterAll();
  EXPECT_GT(Run(NumRequests()).wrong, 0);
}

#endif

}  // namespace
}  // namespace lorikeet
