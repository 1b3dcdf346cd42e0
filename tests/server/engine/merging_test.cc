// Merged variants in the engine: whatever else runs, a request has the bits
// that its variant gives alone; and the base is never written.
//
// $LORIKEET_MERGES sets the number of merges of the switching test.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/reason.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/base_verifier.h"
#include "model/kv_pool.h"
#include "server/engine/engine.h"
#include "tests/server/engine/fake_adapter_store.h"
#include "tests/server/engine/stream_reader.h"
#include "tests/testing/golden.h"
#include "tests/testing/safetensors_writer.h"

namespace lorikeet {
namespace {

using testing::Answer;
using testing::FakeAdapterStore;
using testing::ReadAll;

constexpr int kAdapters = 8;
constexpr int64_t kDefaultMerges = 300;

constexpr char kConfig[] = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64,
  "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
  "head_dim": 16, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "hidden_act": "silu", "torch_dtype": "bfloat16",
  "tie_word_embeddings": false, "eos_token_id": 0, "bos_token_id": 1})";

int64_t NumMerges() {
  const char* text = std::getenv("LORIKEET_MERGES");
  int64_t merges = 0;
  return text != nullptr && absl::SimpleAtoi(text, &merges) ? merges
                                                            : kDefaultMerges;
}

// What must be the same bit for bit.
struct Bits {
  std::vector<Token> tokens;
  std::vector<float> logits;
  friend bool operator==(const Bits&, const Bits&) = default;
};
Bits BitsOf(Answer answer) {
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  return {answer.tokens[0], answer.started.logits};
}

class MergingTest : public ::testing::TestWithParam<DType> {
 protected:
  MergingTest() : pool_(2), ops_(NewCpuOps(pool_)), store_(kAdapters) {
    SetLogLevel(LogLevel::kWarning);
    const std::string dir =
        testing::FreshTempDir(absl::StrCat("merging_", Name(GetParam())));
    testing::WriteTestFile(dir + "/config.json", kConfig);
    PosixFileSystem fs;
    ModelOptions options;
    options.dummy_weights = true;
    options.dtype = GetParam();
    auto model = Model::Load(fs, dir, *ops_, options);
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    for (int i = 0; i < kAdapters; ++i) {
      versions_.push_back(
          store_.AddAdapter(absl::StrCat("a", i), RandomAdapter(i)));
    }
    options_.max_num_seqs = 16;
    options_.max_num_batched_tokens = 64;
    options_.max_merged = 2;
    options_.start_held = true;
    SetBlocks(256);
  }
  ~MergingTest() override { SetLogLevel(LogLevel::kInfo); }

  void SetBlocks(int64_t blocks) {
    options_.kv_cache_bytes =
        blocks * KvPool::BlockBytes(model_->config(), DType::kF32);
  }

  // Strong, on all linears of the layers.
  std::shared_ptr<const LoraSlot> RandomAdapter(int seed) {
    Rng rng(static_cast<uint64_t>(seed) + 1);
    const auto random = [&](int64_t rows, int64_t cols) {
      std::vector<float> values(static_cast<size_t>(rows * cols));
      for (float& v : values) v = static_cast<float>(rng.Normal());
      return values;
    };
    auto slot = std::make_shared<LoraSlot>();
    for (int32_t layer = 0; layer < 2; ++layer) {
      for (int p = 0; p < kNumProjections; ++p) {
        const LinearId id{layer, static_cast<Projection>(p)};
        const int64_t in = model_->in_dim(id.projection);
        const int64_t out = model_->out_dim(id.projection);
        const int64_t rank = 1 + seed % 4;
        const std::vector<float> a = random(rank, in), b = random(out, rank);
        slot->entries.resize(static_cast<size_t>(id.index()) + 1);
        LoraSlot::Entry& entry = slot->entries.back();
        entry.weights =
            ops_->PackLora({a.data(), DType::kF32, rank, in, in},
                           {b.data(), DType::kF32, out, rank, rank});
        entry.scaling = 0.2f;
      }
    }
    return slot;
  }

  Engine& engine() {
    if (engine_ == nullptr) {
      auto engine =
          Engine::Create(*model_, nullptr, *ops_, store_, clock_, options_);
      EXPECT_TRUE(engine.ok()) << engine.status();
      engine_ = *std::move(engine);
    }
    return *engine_;
  }

  // `adapter` -1 is the base; prompts of one seed are the same.
  EngineRequest Request(int adapter, std::optional<Variant> variant,
                        uint64_t prompt_seed, int prompt_tokens = 40) const {
    EngineRequest r;
    Rng rng(1000 + prompt_seed);
    for (int i = 0; i < prompt_tokens; ++i) {
      r.prompt.push_back(static_cast<Token>(2 + rng.Below(94)));
    }
    if (adapter >= 0) r.adapters = {{versions_[static_cast<size_t>(adapter)]}};
    r.variant = variant;
    r.stop.max_tokens = 8;
    r.output.text = false;
    r.output.return_logits = true;
    return r;
  }

  // All in one go.
  std::vector<Answer> Run(const std::vector<EngineRequest>& requests) {
    engine().SetHeld(true);
    std::vector<std::shared_ptr<TokenStream>> streams;
    for (const EngineRequest& r : requests) {
      auto stream = engine().Submit(r);
      EXPECT_TRUE(stream.ok()) << stream.status();
      streams.push_back(*std::move(stream));
    }
    engine().SetHeld(false);
    std::vector<Answer> answers;
    for (const auto& stream : streams) answers.push_back(ReadAll(stream));
    return answers;
  }
  Answer RunOne(const EngineRequest& request) { return Run({request})[0]; }
  Bits Alone(const EngineRequest& request) {
    engine().FlushPrefixCache();
    Bits bits = BitsOf(RunOne(request));
    engine().FlushPrefixCache();
    return bits;
  }

  // Requests of all kinds, and what each gives alone.
  std::vector<EngineRequest> MixedRequests(int count) const {
    std::vector<EngineRequest> requests;
    for (int i = 0; i < count; ++i) {
      const int adapter = i % 4 - 1;
      std::optional<Variant> variant;
      if (adapter >= 0) {
        variant = i / 4 % 2 == 0 ? Variant::kMerged : Variant::kUnmerged;
      }
      requests.push_back(Request(adapter, variant, static_cast<uint64_t>(i % 3),
                                 20 + 7 * (i % 5)));
    }
    return requests;
  }
  void ExpectAloneIsMixed(const std::vector<EngineRequest>& requests) {
    std::vector<Bits> alone;
    for (const EngineRequest& r : requests) alone.push_back(Alone(r));
    const std::vector<Answer> mixed = Run(requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(BitsOf(mixed[i]), alone[i]) << i;
      EXPECT_EQ(mixed[i].started.variant, requests[i].variant) << i;
    }
  }

  ThreadPool pool_;
  const std::unique_ptr<Ops> ops_;
  SystemClock clock_;
  std::unique_ptr<Model> model_;
  FakeAdapterStore store_;
  std::vector<VersionRef> versions_;
  EngineOptions options_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(MergingTest, MergedAndUnmergedAreNearAndNotTheSame) {
  const Bits merged = Alone(Request(0, Variant::kMerged, 1));
  const Bits unmerged = Alone(Request(0, Variant::kUnmerged, 1));
  const Bits base = Alone(Request(-1, {}, 1));
  EXPECT_NE(merged.logits, unmerged.logits);
  double squares = 0, error = 0, change = 0;
  for (size_t i = 0; i < merged.logits.size(); ++i) {
    const double m = merged.logits[i], u = unmerged.logits[i];
    squares += u * u;
    error += (m - u) * (m - u);
    change += (base.logits[i] - u) * (base.logits[i] - u);
  }
  EXPECT_LT(error, 0.1 * 0.1 * squares);
  EXPECT_GT(change, 100 * error);
}

TEST_P(MergingTest, InAMixedBatchEachHasTheBitsOfItsVariantAlone) {
  options_.max_merged = 3;
  ExpectAloneIsMixed(MixedRequests(32));
}

TEST_P(MergingTest, AVariantIsKeptThroughPreemption) {
  options_.max_merged = 3;
  SetBlocks(14);  // of 32 tokens: a few sequences
  std::vector<EngineRequest> requests = MixedRequests(24);
  for (EngineRequest& r : requests) r.stop.max_tokens = 50;
  ExpectAloneIsMixed(requests);
  EXPECT_GT(engine().load().scheduler.preemptions, 0);
}

TEST_P(MergingTest, VariantsShareNoPrefix) {
  const EngineRequest unmerged = Request(0, Variant::kUnmerged, 1);
  const EngineRequest merged = Request(0, Variant::kMerged, 1);
  EXPECT_EQ(RunOne(unmerged).started.cached_tokens, 0);
  EXPECT_EQ(RunOne(merged).started.cached_tokens, 0);
  EXPECT_EQ(RunOne(merged).started.cached_tokens, 32);
  EXPECT_EQ(RunOne(unmerged).started.cached_tokens, 32);
}

TEST_P(MergingTest, SumsAreMergedOnRequestAndOnlyThen) {
  options_.merge = MergePolicy::kAlways;
  EngineRequest sum = Request(0, {}, 2);
  sum.adapters = {{versions_[0], 1}, {versions_[1], -0.5f}};
  EXPECT_EQ(RunOne(sum).started.variant, Variant::kUnmerged);
  sum.variant = Variant::kMerged;
  const Bits alone = Alone(sum);
  std::vector<EngineRequest> requests = MixedRequests(12);
  requests.push_back(sum);
  const std::vector<Answer> mixed = Run(requests);
  EXPECT_EQ(mixed.back().started.variant, Variant::kMerged);
  EXPECT_EQ(BitsOf(mixed.back()), alone);
}

TEST_P(MergingTest, PoliciesDecideWhereTheRequestDoesNot) {
  options_.merge = MergePolicy::kAlways;
  EXPECT_EQ(RunOne(Request(0, {}, 1)).started.variant, Variant::kMerged);
  EXPECT_EQ(RunOne(Request(-1, {}, 1)).started.variant, std::nullopt);
  EngineRequest r = Request(0, {}, 1);
  r.merge_policy = MergePolicy::kNever;  // the adapter's own
  EXPECT_EQ(RunOne(r).started.variant, Variant::kUnmerged);
  r.variant = Variant::kMerged;
  EXPECT_EQ(RunOne(r).started.variant, Variant::kMerged);
}

TEST_P(MergingTest, UnderAutoEachHasTheBitsOfTheVariantItReports) {
  options_.merge = MergePolicy::kAuto;
  std::map<std::pair<int, Variant>, Bits> alone;
  for (int adapter = 0; adapter < 3; ++adapter) {
    for (const Variant v : {Variant::kUnmerged, Variant::kMerged}) {
      alone[{adapter, v}] = Alone(Request(adapter, v, 5));
    }
  }
  Rng rng(3);
  for (int round = 0; round < 60; ++round) {
    std::vector<int> adapters;
    std::vector<EngineRequest> requests;
    for (int i = 0; i < 8; ++i) {
      adapters.push_back(round / 20 % 2 == 0 ? 0
                                             : static_cast<int>(rng.Below(3)));
      requests.push_back(Request(adapters.back(), {}, 5));
    }
    const std::vector<Answer> answers = Run(requests);
    for (size_t i = 0; i < answers.size(); ++i) {
      ASSERT_TRUE(answers[i].started.variant.has_value());
      ASSERT_EQ(BitsOf(answers[i]),
                alone.at({adapters[i], *answers[i].started.variant}));
    }
  }
  const MergeState state = engine().merge_state();
  EXPECT_FALSE(state.costs.passes.empty());
  EXPECT_FALSE(state.choices.empty());
  if (GetParam() == DType::kI8) {  // rounded twice: only who asks
    for (const auto& [key, known] : state.choices) {
      EXPECT_FALSE(known.choice.merge);
    }
  }
}

TEST_P(MergingTest, MoreAdaptersThanPlacesTakeTurnsAndAllAreAnswered) {
  options_.max_merged = 1;
  options_.merge = MergePolicy::kAlways;
  std::vector<Bits> alone;
  for (int a = 0; a < kAdapters; ++a) alone.push_back(Alone(Request(a, {}, 9)));
  std::vector<EngineRequest> requests;
  for (int i = 0; i < 64; ++i)
    requests.push_back(Request(i % kAdapters, {}, 9));
  const std::vector<Answer> answers = Run(requests);
  for (size_t i = 0; i < answers.size(); ++i) {
    ASSERT_EQ(BitsOf(answers[i]), alone[i % kAdapters]) << i;
  }
  const MergeState state = engine().merge_state();
  EXPECT_EQ(state.variants.size(), 1u);
  EXPECT_GT(state.variants[0].bytes, 0);
}

TEST_P(MergingTest, SwitchingForEverLeavesTheBaseAndEveryVariantAsTheyWere) {
  const uint32_t checksum = BaseChecksum(*model_);
  std::vector<Bits> first;
  for (int a = 0; a < kAdapters; ++a) {
    first.push_back(Alone(Request(a, Variant::kMerged, 4, 3)));
  }
  const int64_t merges = NumMerges();
  for (int64_t i = 0; i < merges; ++i) {
    // Two places and eight adapters in turn: each time one is made anew.
    const size_t a = static_cast<size_t>(i % kAdapters);
    ASSERT_EQ(
        BitsOf(RunOne(Request(static_cast<int>(a), Variant::kMerged, 4, 3))),
        first[a])
        << i;
    if (i % 50 == 0) {
      ASSERT_EQ(BaseChecksum(*model_), checksum) << i;
    }
  }
  EXPECT_EQ(BaseChecksum(*model_), checksum);
  std::printf("%ld merges, base checksum %08x before and after\n",
              static_cast<long>(merges), checksum);
}

TEST_P(MergingTest, WhatIsDroppedIsFreedAndMadeAgainWhenAsked) {
  const EngineRequest merged = Request(0, Variant::kMerged, 1);
  const Bits before = BitsOf(RunOne(merged));
  const int64_t bytes = engine().merge_state().variants.at(0).bytes;
  EXPECT_EQ(engine().DropMerged("default", "a1"), 0);
  EXPECT_EQ(engine().DropMerged("default", "a0"), bytes);
  EXPECT_TRUE(engine().merge_state().variants.empty());
  engine().FlushPrefixCache();
  EXPECT_EQ(BitsOf(RunOne(merged)), before);
}

TEST_P(MergingTest, WhoWaitsForAMergeCanBeCancelled) {
  engine().SetHeld(true);
  auto waiting = engine().Submit(Request(0, Variant::kMerged, 1));
  auto other = engine().Submit(Request(1, Variant::kMerged, 1));
  ASSERT_TRUE(waiting.ok() && other.ok());
  (*waiting)->Cancel();
  engine().SetHeld(false);
  EXPECT_TRUE(absl::IsCancelled(ReadAll(*waiting).status));
  EXPECT_TRUE(ReadAll(*other).status.ok());
}

TEST_P(MergingTest, WhatCannotBeMergedIsRefusedByName) {
  const auto refuse = [&](const EngineRequest& r) {
    const auto stream = engine().Submit(r);
    EXPECT_FALSE(stream.ok());
    return std::make_pair(ReasonOf(stream.status()),
                          std::string(stream.status().message()));
  };
  EXPECT_EQ(refuse(Request(-1, Variant::kMerged, 1)).first,
            "MERGE_UNSUPPORTED");
  EngineRequest alora = Request(-1, Variant::kMerged, 1);
  alora.adapters = {{store_.AddAdapter("alora", RandomAdapter(0), {5, 6})}};
  const auto [reason, message] = refuse(alora);
  EXPECT_EQ(reason, "MERGE_UNSUPPORTED");
  EXPECT_NE(message.find("alora_invocation_tokens"), std::string::npos);
  alora.variant = std::nullopt;
  alora.merge_policy = MergePolicy::kAlways;  // does not concern it
  EXPECT_EQ(RunOne(alora).started.variant, Variant::kUnmerged);
}

TEST_P(MergingTest, WithoutAPlaceNothingIsMerged) {
  options_.max_merged = 0;
  const auto stream = engine().Submit(Request(0, Variant::kMerged, 1));
  EXPECT_EQ(ReasonOf(stream.status()), "MERGE_OFF");
  EXPECT_EQ(RunOne(Request(0, {}, 1)).started.variant, Variant::kUnmerged);
}

TEST_P(MergingTest, AnAdapterThatCannotBeLoadedFailsItsRequestsOnly) {
  store_.SetLoadOnPrefetch(false);
  store_.Load(versions_[1]->key);
  store_.FailLoad(versions_[0]->key, absl::DataLossError("damaged"));
  const std::vector<Answer> answers =
      Run({Request(0, Variant::kMerged, 1), Request(1, Variant::kMerged, 1)});
  EXPECT_TRUE(absl::IsDataLoss(answers[0].status)) << answers[0].status;
  EXPECT_TRUE(answers[1].status.ok()) << answers[1].status;
}

INSTANTIATE_TEST_SUITE_P(BaseTypes, MergingTest,
                         ::testing::Values(DType::kF32, DType::kBF16,
                                           DType::kF16, DType::kI8),
                         [](const auto& p) { return Name(p.param); });

}  // namespace
}  // namespace lorikeet
