// The engine around a fake model and a fake store.

#include "server/engine/engine.h"

#include <memory>
#include <string>
#include <vector>

#include "base/reason.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/engine_impl.h"
#include "server/engine/retry_after.h"
#include "tests/server/engine/fake_adapter_store.h"
#include "tests/server/engine/fake_runner.h"
#include "tests/server/engine/stream_reader.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

using testing::Answer;
using ::testing::ElementsAre;
using testing::FakeAdapterStore;
using testing::FakeRunner;
using ::testing::HasSubstr;
using testing::ReadAll;

class EngineTest : public ::testing::Test {
 protected:
  static EngineOptions Options() {
    EngineOptions options;
    options.max_model_len = 200;
    options.max_num_seqs = 8;
    options.max_num_batched_tokens = 32;
    options.max_waiting_requests = 50;
    options.kv_cache_bytes = 1;
    return options;
  }

  Engine& engine() {
    if (engine_ == nullptr) {
      EngineImpl::ModelFacts facts;
      facts.vocab_size = FakeRunner::kVocab;
      facts.num_blocks = num_blocks_;
      facts.block_size = FakeRunner::kBlockSize;
      engine_ = std::make_unique<EngineImpl>(
          std::make_unique<FakeRunner>(num_blocks_, shared_), facts,
          tokenizer_.get(), store_, clock_, options_);
    }
    return *engine_;
  }
  // Lets the engine see that time has passed.
  void Advance(absl::Duration d) { clock_.Advance(d); }

  static EngineRequest Request(std::vector<Token> prompt,
                               int32_t max_tokens = 5) {
    EngineRequest r;
    r.prompt = std::move(prompt);
    r.stop.max_tokens = max_tokens;
    return r;
  }
  static std::vector<Token> Prompt(int n, Token first = 1) {
    std::vector<Token> prompt;
    for (int i = 0; i < n; ++i) prompt.push_back(first + i);
    return prompt;
  }
  std::shared_ptr<TokenStream> Submit(EngineRequest r) {
    auto stream = engine().Submit(std::move(r));
    EXPECT_TRUE(stream.ok()) << stream.status();
    return *stream;
  }
  Answer Run(EngineRequest r) { return ReadAll(Submit(std::move(r))); }
  // What the fake model says after `prompt`.
  static std::vector<Token> Expected(std::vector<Token> prompt, int n,
                                     uint64_t adapter = 0, size_t from = 0) {
    std::vector<Token> out;
    for (int i = 0; i < n; ++i) {
      out.push_back(FakeRunner::NextToken(prompt, adapter, from));
      prompt.push_back(out.back());
    }
    return out;
  }
  VersionRef Adapter(const std::string& name, uint32_t generation,
                     std::vector<Token> invocation = {}) {
    auto slot = std::make_shared<LoraSlot>();
    slot->generation = generation;
    return store_.AddAdapter(name, slot, std::move(invocation));
  }

  int64_t num_blocks_ = 256;
  EngineOptions options_ = Options();
  std::shared_ptr<FakeRunner::Shared> shared_ =
      std::make_shared<FakeRunner::Shared>();
  ManualClock clock_;
  FakeAdapterStore store_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, StreamsTokensAndEnds) {
  const Answer a = Run(Request(Prompt(10)));
  EXPECT_TRUE(a.status.ok()) << a.status;
  EXPECT_EQ(a.started.prompt_tokens, 10);
  EXPECT_EQ(a.tokens.at(0), Expected(Prompt(10), 5));
  const FinishedEvent& f = a.finished.at(0);
  EXPECT_EQ(f.reason, FinishReason::kLength);
  EXPECT_EQ(f.usage.prompt_tokens, 10);
  EXPECT_EQ(f.usage.completion_tokens, 5);
  EXPECT_EQ(f.usage.cached_tokens, 0);
}

TEST_F(EngineTest, SaysHowMuchOfAPromptWasCached) {
  Run(Request(Prompt(10)));
  const Answer a = Run(Request(Prompt(10)));
  EXPECT_EQ(a.started.cached_tokens, 8);
  EXPECT_EQ(a.finished.at(0).usage.cached_tokens, 8);
  EXPECT_EQ(a.tokens.at(0), Expected(Prompt(10), 5));
}

TEST_F(EngineTest, PrefixesOfOtherTenantsAndAdaptersAreNotReused) {
  Run(Request(Prompt(10)));
  EngineRequest other = Request(Prompt(10));
  other.tenant = "acme";
  EXPECT_EQ(Run(std::move(other)).started.cached_tokens, 0);
  EngineRequest adapted = Request(Prompt(10));
  adapted.adapters = {{Adapter("a", 7)}};
  const Answer a = Run(std::move(adapted));
  EXPECT_EQ(a.started.cached_tokens, 0);
  EXPECT_EQ(a.tokens.at(0), Expected(Prompt(10), 5, 7));
}

TEST_F(EngineTest, ManyRequestsGetTheAnswersThatEachWouldGetAlone) {
  num_blocks_ = 24;  // They have to preempt each other.
  options_.max_num_batched_tokens = 7;
  options_.start_held = true;
  std::vector<std::shared_ptr<TokenStream>> streams;
  std::vector<VersionRef> adapters = {nullptr, Adapter("a", 1), Adapter("b", 2),
                                      Adapter("c", 3)};
  for (int i = 0; i < 30; ++i) {
    EngineRequest r = Request(Prompt(5 + i, 100), 12);
    if (i % 4 > 0) r.adapters = {{adapters[static_cast<size_t>(i % 4)]}};
    streams.push_back(Submit(std::move(r)));
  }
  engine().SetHeld(false);
  for (int i = 0; i < 30; ++i) {
    const Answer a = ReadAll(streams[static_cast<size_t>(i)]);
    EXPECT_EQ(a.tokens.at(0), Expected(Prompt(5 + i, 100), 12, i % 4)) << i;
  }
  engine().WaitUntilIdle();
  EXPECT_GT(engine().load().scheduler.preemptions, 0);
  EXPECT_EQ(store_.num_leased(), 0);
}

TEST_F(EngineTest, RowsOfAnAdapterAreOneSegment) {
  options_.start_held = true;
  std::vector<std::shared_ptr<TokenStream>> streams;
  const VersionRef a = Adapter("a", 1), b = Adapter("b", 2);
  store_.Load(a->key);
  store_.Load(b->key);
  for (int i = 0; i < 8; ++i) {
    EngineRequest r = Request(Prompt(3, 50 * i));
    r.adapters = {{i % 2 == 0 ? a : b}};
    streams.push_back(Submit(std::move(r)));
  }
  engine().SetHeld(false);
  for (const auto& stream : streams) ReadAll(stream);
  EXPECT_EQ(shared_->max_segments, 2);
}

// ---- aLoRA: the adapter acts from its invocation on -------------------------

TEST_F(EngineTest, AnInvokedAdapterActsFromTheInvocationOn) {
  const VersionRef alora = Adapter("alora", 7, {5, 6});
  for (const int64_t budget : {3, 16}) {
    options_.max_num_batched_tokens = budget;
    EngineRequest r = Request({1, 5, 6, 2, 5, 6, 3});
    r.adapters = {{alora}};
    EXPECT_EQ(Run(r).tokens.at(0), Expected(r.prompt, 5, 7, 4)) << budget;
    engine_.reset();
  }
}

TEST_F(EngineTest, AnAdapterThatIsNotInvokedIsNeitherUsedNorLoaded) {
  EngineRequest r = Request(Prompt(10));
  r.adapters = {{Adapter("alora", 7, {400})}};
  EXPECT_EQ(Run(r).tokens.at(0), Expected(Prompt(10), 5));
  EXPECT_THAT(store_.prefetched(), ::testing::IsEmpty());
}

TEST_F(EngineTest, WhatComesBeforeAnInvocationIsSharedWithTheBase) {
  const VersionRef alora = Adapter("alora", 7, {400});
  Run(Request(Prompt(10)));
  EngineRequest r = Request(Prompt(9));  // two blocks and one token
  r.prompt.push_back(400);
  r.prompt.push_back(1);
  r.adapters = {{alora}};
  const Answer first = Run(r);
  EXPECT_EQ(first.started.cached_tokens, 8);
  EXPECT_EQ(first.tokens.at(0), Expected(r.prompt, 5, 7, 9));
  // And the other way round, and with itself behind the invocation.
  EXPECT_EQ(Run(Request(Prompt(10))).started.cached_tokens, 8);
  r.prompt.push_back(2);
  r.prompt.push_back(3);
  const Answer longer = Run(r);
  EXPECT_EQ(longer.tokens.at(0), Expected(r.prompt, 5, 7, 9));
}

TEST_F(EngineTest, PrefixesOfAnotherInvocationAreNotReused) {
  const VersionRef alora = Adapter("alora", 7, {400});
  EngineRequest once = Request({400, 1, 2, 3, 4, 5, 6, 7, 8}, 2);
  once.adapters = {{alora}};
  Run(once);
  // The same tokens, but now the first invocation does not count.
  EngineRequest twice = once;
  twice.prompt.push_back(400);
  const Answer a = Run(twice);
  EXPECT_EQ(a.started.cached_tokens, 0);
  EXPECT_EQ(a.tokens.at(0), Expected(twice.prompt, 2, 7, 9));
  // The base has computed none of the first one's blocks either.
  EXPECT_EQ(Run(Request(once.prompt)).started.cached_tokens, 8)
      << "blocks of the second one, before its invocation";
}

// ---- compositions -----------------------------------------------------------

TEST_F(EngineTest, AdaptersOfACompositionActTogether) {
  const VersionRef a = Adapter("a", 1), b = Adapter("b", 2);
  EngineRequest r = Request(Prompt(10));
  r.adapters = {{a, 0.5f}, {b, 1}, {a, 1}};
  EXPECT_EQ(Run(r).tokens.at(0),
            Expected(Prompt(10), 5,
                     FakeRunner::HashOfTerms({{1, 0.5f}, {2, 1}, {1, 1}})));
  EXPECT_THAT(store_.prefetched(), ElementsAre("a", "b"));
}

TEST_F(EngineTest, PrefixesOfOtherScalesAndOrdersAreNotReused) {
  const VersionRef a = Adapter("a", 1), b = Adapter("b", 2);
  const auto cached = [&](std::vector<RequestAdapter> adapters) {
    EngineRequest r = Request(Prompt(10));
    r.adapters = std::move(adapters);
    return Run(std::move(r)).started.cached_tokens;
  };
  EXPECT_EQ(cached({{a, 0.5f}, {b, 1}}), 0);
  EXPECT_EQ(cached({{a, 0.5f}, {b, 1}}), 8);
  EXPECT_EQ(cached({{b, 1}, {a, 0.5f}}), 0);
  EXPECT_EQ(cached({{a, 0.25f}, {b, 1}}), 0);
  EXPECT_EQ(cached({{a, 0.5f}}), 0);
  EXPECT_EQ(cached({{a, 1}}), 0);
  EXPECT_EQ(cached({{a, 1}}), 8);
}

TEST_F(EngineTest, CompositionsAndTheirPartsTakeTurnsInTooFewSlots) {
  num_blocks_ = 64;
  options_.start_held = true;
  std::vector<VersionRef> all;
  for (uint32_t i = 0; i < 8; ++i) {
    all.push_back(Adapter("a" + std::to_string(i), i + 1));
  }
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (size_t i = 0; i < 24; ++i) {
    EngineRequest r = Request(Prompt(6, static_cast<Token>(10 * i)), 3);
    // One, two, three or four adapters in the four slots.
    for (size_t k = 0; k <= i % 4; ++k) {
      r.adapters.push_back({all[(i + 3 * k) % 8], 1});
    }
    streams.push_back(Submit(std::move(r)));
  }
  engine().SetHeld(false);
  for (size_t i = 0; i < 24; ++i) {
    std::vector<std::pair<uint32_t, float>> terms;
    for (size_t k = 0; k <= i % 4; ++k) {
      terms.emplace_back((i + 3 * k) % 8 + 1, 1.0f);
    }
    EXPECT_EQ(ReadAll(streams[i]).tokens.at(0),
              Expected(Prompt(6, static_cast<Token>(10 * i)), 3,
                       FakeRunner::HashOfTerms(terms)))
        << i;
  }
  engine().WaitUntilIdle();
  EXPECT_EQ(store_.num_leased(), 0);
}

TEST_F(EngineTest, ALoadErrorOfOnePartEndsTheComposition) {
  store_.SetLoadOnPrefetch(false);
  const VersionRef good = Adapter("good", 1), bad = Adapter("bad", 2);
  store_.Load(good->key);
  EngineRequest r = Request(Prompt(4));
  r.adapters = {{good}, {bad}};
  auto stream = Submit(r);
  store_.FailLoad(bad->key, absl::DataLossError("damaged"));
  EXPECT_EQ(ReadAll(stream).status, absl::DataLossError("damaged"));
}

TEST_F(EngineTest, AbortingAnAdapterEndsItsCompositions) {
  options_.max_model_len = 100000;
  num_blocks_ = 30000;
  EngineRequest r = Request(Prompt(4), 90000);
  r.adapters = {{Adapter("a", 1)}, {Adapter("b", 2)}};
  auto stream = Submit(std::move(r));
  while (!stream->Next().has_value()) {
  }
  engine().AbortAdapter("default", "b");
  const Answer a = ReadAll(stream);
  EXPECT_EQ(a.finished.at(0).reason, FinishReason::kAbort);
}

TEST_F(EngineTest, CandidatesShareThePromptAndDifferInWhatTheyDraw) {
  EngineRequest r = Request(Prompt(10), 6);
  r.sampling.n = 3;
  r.sampling.temperature = 1;
  r.sampling.seed = 5;
  const Answer a = Run(r);
  ASSERT_EQ(a.tokens.size(), 3u);
  ASSERT_EQ(a.finished.size(), 3u);
  EXPECT_NE(a.tokens.at(0), a.tokens.at(1));
  EXPECT_NE(a.tokens.at(1), a.tokens.at(2));
  // 10 rows of prompt once, then 5 of each candidate.
  EXPECT_EQ(shared_->rows, 10 + 3 * 5);
  EXPECT_EQ(Run(r).tokens, a.tokens);
}

TEST_F(EngineTest, ASeedGivesTheSameTokensWhateverElseRuns) {
  EngineRequest r = Request(Prompt(9), 20);
  r.sampling.temperature = 0.8f;
  r.sampling.seed = 11;
  const Answer alone = Run(r);
  num_blocks_ = 20;
  engine_.reset();
  options_.start_held = true;
  std::vector<std::shared_ptr<TokenStream>> others;
  for (int i = 0; i < 6; ++i) others.push_back(Submit(Request(Prompt(7), 25)));
  auto stream = Submit(r);
  for (int i = 0; i < 6; ++i) others.push_back(Submit(Request(Prompt(8), 25)));
  engine().SetHeld(false);
  EXPECT_EQ(ReadAll(stream).tokens, alone.tokens);
  for (const auto& other : others) EXPECT_TRUE(ReadAll(other).status.ok());
}

TEST_F(EngineTest, PenaltiesSeePromptAndOutput) {
  EngineRequest r = Request(Prompt(4), 6);
  r.sampling.frequency_penalty = 1;
  const Answer a = Run(r);
  EXPECT_NE(a.tokens.at(0), Expected(Prompt(4), 6));
  // And a preempted candidate counts the same.
  num_blocks_ = 4;
  engine_.reset();
  options_.start_held = true;
  auto older = Submit(Request(Prompt(4, 300), 10));
  auto stream = Submit(r);
  engine().SetHeld(false);
  EXPECT_EQ(ReadAll(stream).tokens, a.tokens);
  ReadAll(older);
  EXPECT_GT(engine().load().scheduler.preemptions, 0);
}

TEST_F(EngineTest, MinTokensBansTheEndToken) {
  const std::vector<Token> plain = Expected(Prompt(4), 3);
  EngineRequest r = Request(Prompt(4), 8);
  r.stop.eos_tokens = {plain[1]};
  EXPECT_EQ(Run(r).finished.at(0).usage.completion_tokens, 2);
  r.stop.min_tokens = 4;
  const Answer a = Run(r);
  EXPECT_GE(a.finished.at(0).usage.completion_tokens, 4);
  EXPECT_EQ(a.tokens.at(0)[1], plain[1] + 1);
}

TEST_F(EngineTest, PromptLogprobsAreTheSameInOnePieceAndInChunks) {
  EngineRequest r = Request(Prompt(20), 2);
  r.output.num_prompt_logprobs = 0;
  r.output.return_logits = true;
  const Answer whole = Run(r);
  ASSERT_EQ(whole.started.prompt_logprobs.size(), 19u);
  EXPECT_EQ(whole.started.prompt_logprobs[4].token, Prompt(20)[5]);
  EXPECT_EQ(whole.started.logits.size(),
            static_cast<size_t>(FakeRunner::kVocab));
  engine_.reset();
  options_.max_num_batched_tokens = 3;
  const Answer chunked = Run(r);
  for (size_t i = 0; i < 19; ++i) {
    EXPECT_EQ(chunked.started.prompt_logprobs[i].logprob,
              whole.started.prompt_logprobs[i].logprob);
  }
  EXPECT_EQ(chunked.started.logits, whole.started.logits);
}

TEST_F(EngineTest, CancelEndsARequestAndFreesWhatItHas) {
  options_.max_model_len = 100000;
  num_blocks_ = 30000;
  EngineRequest r = Request(Prompt(4), 90000);
  r.adapters = {{Adapter("a", 1)}};
  auto stream = Submit(std::move(r));
  while (!stream->Next().has_value()) {
  }
  stream->Cancel();
  const Answer a = ReadAll(stream);
  EXPECT_EQ(a.status.code(), absl::StatusCode::kCancelled);
  stream->Cancel();
  engine().WaitUntilIdle();
  EXPECT_EQ(store_.num_leased(), 0);
}

TEST_F(EngineTest, WaitsForAColdAdapterWhileOthersRun) {
  store_.SetLoadOnPrefetch(false);
  const VersionRef cold = Adapter("cold", 9);
  EngineRequest r = Request(Prompt(4));
  r.adapters = {{cold}};
  auto waiting = Submit(std::move(r));
  EXPECT_EQ(Run(Request(Prompt(4))).tokens.at(0), Expected(Prompt(4), 5));
  EXPECT_EQ(waiting->Next(), std::nullopt);
  Advance(absl::Seconds(2));
  store_.Load(cold->key);
  const Answer a = ReadAll(waiting);
  EXPECT_EQ(a.tokens.at(0), Expected(Prompt(4), 5, 9));
  EXPECT_EQ(a.finished.at(0).timings.adapter_load, absl::Seconds(2));
  EXPECT_EQ(a.finished.at(0).timings.queue, absl::Seconds(2));
  EXPECT_THAT(store_.prefetched(), ElementsAre("cold"));
}

TEST_F(EngineTest, ALoadErrorEndsTheRequestsThatWaitForIt) {
  store_.SetLoadOnPrefetch(false);
  const VersionRef bad = Adapter("bad", 9);
  EngineRequest r = Request(Prompt(4));
  r.adapters = {{bad}};
  auto one = Submit(r);
  auto two = Submit(r);
  store_.FailLoad(bad->key, absl::DataLossError("damaged"));
  EXPECT_EQ(ReadAll(one).status, absl::DataLossError("damaged"));
  EXPECT_EQ(ReadAll(two).status, absl::DataLossError("damaged"));
}

TEST_F(EngineTest, MoreAdaptersThanSlotsAllGetTheirTurn) {
  options_.start_held = true;
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (uint32_t i = 0; i < 20; ++i) {
    EngineRequest r = Request(Prompt(4), 3);
    r.adapters = {{Adapter("a" + std::to_string(i), i + 1)}};
    streams.push_back(Submit(std::move(r)));
  }
  engine().SetHeld(false);
  for (uint32_t i = 0; i < 20; ++i) {
    EXPECT_EQ(ReadAll(streams[i]).tokens.at(0), Expected(Prompt(4), 3, i + 1));
  }
}

TEST_F(EngineTest, RefusesWhatIsTooLong) {
  const absl::Status status =
      engine().Submit(Request(Prompt(150), 60)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "CONTEXT_LENGTH_EXCEEDED");
  EXPECT_THAT(std::string(status.message()), HasSubstr("150"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("60"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("200"));
  EXPECT_TRUE(engine().Submit(Request(Prompt(150), 50)).ok());
}

TEST_F(EngineTest, RefusesWhatCanNeverFitTheCache) {
  num_blocks_ = 5;
  const absl::Status status = engine().Submit(Request(Prompt(15), 6)).status();
  EXPECT_EQ(ReasonOf(status), "CONTEXT_LENGTH_EXCEEDED");
}

TEST_F(EngineTest, RefusesTokensOutsideTheVocabulary) {
  EXPECT_EQ(engine().Submit(Request({1, 1000})).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(engine().Submit(Request({-1})).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(engine().Submit(Request({})).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(EngineTest, AnExtraRequestTakesNoOthersPlace) {
  options_.start_held = true;
  options_.max_waiting_requests = 4;
  EngineRequest extra = Request(Prompt(3));
  extra.is_extra = true;
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (int i = 0; i < 2; ++i) streams.push_back(Submit(extra));
  EXPECT_EQ(ReasonOf(engine().Submit(extra).status()), "QUEUE_FULL");
  for (int i = 0; i < 4; ++i) streams.push_back(Submit(Request(Prompt(3))));
  EXPECT_EQ(ReasonOf(engine().Submit(Request(Prompt(3))).status()),
            "QUEUE_FULL");
  EXPECT_EQ(engine().load().scheduler.waiting, 6);
  engine().SetHeld(false);
  for (const auto& stream : streams) EXPECT_TRUE(ReadAll(stream).status.ok());
  EXPECT_EQ(engine().load().scheduler.waiting, 0);
}

TEST_F(EngineTest, AFullQueueRefusesWithAHint) {
  options_.start_held = true;
  options_.max_waiting_requests = 2;
  auto one = Submit(Request(Prompt(3)));
  auto two = Submit(Request(Prompt(3)));
  const absl::Status status = engine().Submit(Request(Prompt(3))).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  EXPECT_TRUE(RetryAfterOf(status).has_value());
  engine().SetHeld(false);
  ReadAll(one);
  ReadAll(two);
  EXPECT_TRUE(Run(Request(Prompt(3))).status.ok());
}

TEST_F(EngineTest, HeldRequestsRunWhenReleased) {
  options_.start_held = true;
  auto stream = Submit(Request(Prompt(3)));
  EXPECT_EQ(shared_->steps, 0);
  engine().SetHeld(false);
  EXPECT_TRUE(ReadAll(stream).status.ok());
}

TEST_F(EngineTest, ASlowReaderIsPausedAndGoesOnWhenItReads) {
  options_.max_buffered_deltas = 4;
  auto stream = Submit(Request(Prompt(4), 50));
  while (shared_->steps < 4) {
  }
  // Somebody else needs the engine to go round.
  Run(Request(Prompt(4, 500), 20));
  EXPECT_EQ(std::get<StartedEvent>(*stream->Next()).prompt_tokens, 4);
  EXPECT_EQ(std::get<DeltaEvent>(*stream->Next()).tokens.size(), 4u);
  const Answer rest = ReadAll(stream);
  EXPECT_TRUE(rest.status.ok());
  EXPECT_EQ(rest.tokens.at(0).size(), 46u);
}

TEST_F(EngineTest, AReaderThatIsTooSlowEndsTheRequest) {
  options_.max_buffered_deltas = 4;
  auto stream = Submit(Request(Prompt(4), 50));
  Run(Request(Prompt(4, 500), 20));
  Advance(absl::Seconds(31));
  engine().WaitUntilIdle();
  EXPECT_TRUE(stream->done());
  EXPECT_EQ(stream->status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(stream->status()), "SLOW_READER");
}

TEST_F(EngineTest, DrainRefusesNewRequestsAndWaitsForTheOthers) {
  options_.start_held = true;
  auto stream = Submit(Request(Prompt(4)));
  EXPECT_EQ(engine().Drain(absl::Milliseconds(1)), 1);
  const absl::Status status = engine().Submit(Request(Prompt(4))).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), "SERVER_DRAINING");
  engine().SetHeld(false);
  EXPECT_EQ(engine().Drain(absl::Seconds(60)), 0);
  EXPECT_TRUE(ReadAll(stream).status.ok());
}

TEST_F(EngineTest, AbortAllFinishesEverythingWithAbort) {
  options_.start_held = true;
  auto stream = Submit(Request(Prompt(4)));
  engine().AbortAll();
  const Answer a = ReadAll(stream);
  EXPECT_TRUE(a.status.ok());
  EXPECT_EQ(a.finished.at(0).reason, FinishReason::kAbort);
  EXPECT_EQ(engine().Drain(absl::ZeroDuration()), 0);
}

TEST_F(EngineTest, AbortAdapterLeavesOthersAlone) {
  options_.start_held = true;
  EngineRequest r = Request(Prompt(4));
  r.adapters = {{Adapter("a", 1)}};
  const std::weak_ptr<const AdapterVersionInfo> hold = r.adapters[0].version;
  auto aborted = Submit(std::move(r));
  auto other = Submit(Request(Prompt(4)));
  engine().AbortAdapter("default", "a");
  EXPECT_EQ(ReadAll(aborted).finished.at(0).reason, FinishReason::kAbort);
  EXPECT_TRUE(hold.expired());
  engine().SetHeld(false);
  EXPECT_EQ(ReadAll(other).finished.at(0).reason, FinishReason::kLength);
}

TEST_F(EngineTest, AFailedStepEndsItsRequestsAndTheEngineGoesOn) {
  shared_->fail_next = true;
  EXPECT_EQ(Run(Request(Prompt(4))).status.code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(Run(Request(Prompt(4))).status.ok());
}

TEST_F(EngineTest, TheEndOfTheEngineCancelsWhatIsLeft) {
  options_.start_held = true;
  auto stream = Submit(Request(Prompt(4)));
  engine_.reset();
  EXPECT_EQ(ReadAll(stream).status.code(), absl::StatusCode::kCancelled);
  stream->Cancel();
}

TEST_F(EngineTest, FlushForgetsPrefixes) {
  Run(Request(Prompt(10)));
  EXPECT_GT(engine().FlushPrefixCache(), 0);
  EXPECT_EQ(engine().load().scheduler.blocks_cached, 0);
  EXPECT_EQ(Run(Request(Prompt(10))).started.cached_tokens, 0);
}

TEST_F(EngineTest, CountsItsLoad) {
  options_.start_held = true;
  auto stream = Submit(Request(Prompt(4), 7));
  EXPECT_EQ(engine().load().scheduler.waiting, 1);
  engine().SetHeld(false);
  ReadAll(stream);
  engine().WaitUntilIdle();
  const EngineLoad load = engine().load();
  EXPECT_EQ(load.generated_tokens, 7);
  EXPECT_GT(load.decode_tokens_per_second, 0);
  EXPECT_EQ(load.steps, shared_->steps);
}

TEST_F(EngineTest, StopStringsEndARequest) {
  PosixFileSystem fs;
  auto tokenizer =
      Tokenizer::Load(fs, JoinPath(testing::SourceDir(), "demo/base"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  tokenizer_ = *std::move(tokenizer);
  const Answer plain = Run(Request(Prompt(6), 40));
  const std::string& text = plain.text.at(0);
  ASSERT_GT(text.size(), 8u);
  EngineRequest r = Request(Prompt(6), 40);
  r.stop.stop = {text.substr(5, 3)};
  const Answer a = Run(r);
  EXPECT_EQ(a.finished.at(0).reason, FinishReason::kStop);
  EXPECT_EQ(a.finished.at(0).matched_stop, r.stop.stop[0]);
  EXPECT_EQ(a.text.at(0), text.substr(0, text.find(r.stop.stop[0])));
  EXPECT_LT(a.tokens.at(0).size(), plain.tokens.at(0).size());
}

}  // namespace
}  // namespace lorikeet
