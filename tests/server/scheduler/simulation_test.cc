// A model whose K and V of a position are a hash of all tokens up to it, and
// whose next token is a hash as well, runs under the scheduler's plans. Every
// step checks that the blocks hold what the prefix needs, so a block that is
// shared, copied, cached or given away wrongly shows at once.

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "gtest/gtest.h"
#include "server/scheduler/scheduler.h"

namespace lorikeet {
namespace {

constexpr int64_t kBlockSize = 4;
constexpr Token kVocab = 50000;

uint64_t HashNext(uint64_t prefix, Token token) {
  uint64_t h = (prefix ^ static_cast<uint64_t>(token)) * 0x9e3779b97f4a7c15ULL;
  return h ^ (h >> 29);
}

struct SimOptions {
  uint64_t seed = 0;
  int64_t blocks = 24;
  int64_t max_num_seqs = 6;
  int64_t token_budget = 16;
  int adapters = 6;
  int slots = 2;
  bool prefix_caching = true;
};

// Slots that adapters are loaded into; a load takes a few steps.
class SimDevice final : public ResidencyView {
 public:
  explicit SimDevice(int slots) : slots_(slots) {}

  bool IsResident(const AdapterKey& key) const override {
    return std::ranges::find(resident_, key) != resident_.end();
  }
  bool HasRoomFor(std::span<const AdapterKey> keys) const override {
    const int64_t others =
        std::ranges::count_if(in_use_, [&](const AdapterKey& key) {
          return std::ranges::find(keys, key) == keys.end();
        });
    return others + static_cast<int64_t>(keys.size()) <= slots_;
  }
  void SetInUse(std::vector<AdapterKey> keys) {
    in_use_ = std::move(keys);
    for (const AdapterKey& key : in_use_) ASSERT_TRUE(IsResident(key));
  }
  // Loads what is most urgent into what is free beside what is in use.
  void Promote(const std::vector<AdapterKey>& keys, Rng* rng) {
    const size_t room = static_cast<size_t>(slots_) - in_use_.size();
    const size_t count = std::min(room, keys.size());
    for (size_t i = count; i-- > 0;) Touch(keys[i]);
    for (size_t i = 0; i < count; ++i) {
      if (!IsResident(keys[i]) && !loading_.contains(keys[i])) {
        loading_[keys[i]] = 1 + static_cast<int>(rng->Below(6));
      }
    }
    for (auto it = loading_.begin(); it != loading_.end();) {
      if (--it->second > 0) {
        ++it;
      } else {
        Insert(it->first);
        it = loading_.erase(it);
      }
    }
  }

 private:
  bool InUse(const AdapterKey& key) const {
    return std::ranges::find(in_use_, key) != in_use_.end();
  }
  void Touch(const AdapterKey& key) {
    const auto it = std::ranges::find(resident_, key);
    if (it == resident_.end()) return;
    resident_.erase(it);
    resident_.push_back(key);
  }
  void Insert(const AdapterKey& key) {
    if (static_cast<int>(resident_.size()) == slots_) {
      const auto victim = std::ranges::find_if(
          resident_, [this](const AdapterKey& k) { return !InUse(k); });
      if (victim == resident_.end()) return;  // The load failed; again later.
      resident_.erase(victim);
    }
    resident_.push_back(key);
  }

  const int slots_;
  std::deque<AdapterKey> resident_;  // least recently used first
  std::map<AdapterKey, int> loading_;
  std::vector<AdapterKey> in_use_;
};

class Sim {
 public:
  explicit Sim(const SimOptions& options)
      : options_(options),
        rng_(options.seed),
        device_(options.slots),
        kv_(static_cast<size_t>(options.blocks * kBlockSize)) {
    SchedulerOptions o;
    o.num_blocks = options.blocks;
    o.block_size = kBlockSize;
    o.max_num_seqs = options.max_num_seqs;
    o.max_num_batched_tokens = options.token_budget;
    o.max_waiting_requests = 40;
    o.prefix_caching = options.prefix_caching;
    o.max_passes = 8;
    scheduler_ = Scheduler::Create(o);
  }

  int64_t submitted() const { return submitted_; }
  int64_t ended() const { return ended_; }
  int64_t preemptions() const { return scheduler_->load().preemptions; }
  int64_t copies() const { return copies_; }
  int64_t cached_tokens() const { return scheduler_->load().cached_tokens; }

  void MaybeArrive() {
    if (rng_.Below(4) != 0) return;
    SchedulerRequest r;
    r.id = RequestId(next_id_++);
    r.arrival = absl::Milliseconds(step_);
    KvDomain& domain = r.domains[0].domain;
    domain.value[0] = rng_.Below(2);
    // Few first tokens, so that prompts share prefixes.
    const int64_t length = 1 + static_cast<int64_t>(rng_.Below(40));
    const Token family = static_cast<Token>(rng_.Below(3));
    const int64_t common = static_cast<int64_t>(rng_.Below(30));
    for (int64_t i = 0; i < length; ++i) {
      r.prompt.push_back(i < common ? family * 100 + static_cast<Token>(i)
                                    : static_cast<Token>(rng_.Below(kVocab)));
    }
    r.max_tokens = 1 + static_cast<int32_t>(rng_.Below(24));
    const int64_t room = options_.blocks * kBlockSize;
    if (length + r.max_tokens > room) return;
    r.num_candidates =
        rng_.Below(5) == 0
            ? 1 + static_cast<int32_t>(
                      rng_.Below(static_cast<uint64_t>(options_.max_num_seqs)))
            : 1;
    AddAdapters(&r);
    r.priority = rng_.Below(10) == 0 ? 1 : 0;
    r.use_prefix_cache = rng_.Below(8) != 0;
    r.all_prompt_logits = rng_.Below(10) == 0;
    Live live;
    live.request = r;
    live.outputs.resize(static_cast<size_t>(r.num_candidates));
    live.finished.resize(static_cast<size_t>(r.num_candidates));
    if (!scheduler_->Add(std::move(r))) return;
    live.arrived = step_;
    ++submitted_;
    live_.emplace(live.request.id, std::move(live));
  }

  void MaybeCancel() {
    if (live_.empty() || rng_.Below(60) != 0) return;
    const RequestId id = RandomLive();
    scheduler_->Cancel(id);
    scheduler_->Cancel(id);
    End(id);
  }

  void MaybePause() {
    if (live_.empty() || rng_.Below(20) != 0) return;
    Live& live = live_.at(RandomLive());
    live.paused = !live.paused;
    scheduler_->SetPaused(live.request.id, live.paused);
  }

  void ResumeAll() {
    for (auto& [id, live] : live_) {
      live.paused = false;
      scheduler_->SetPaused(id, false);
    }
  }

  void Step() {
    ++step_;
    device_.SetInUse(scheduler_->AdaptersInUse());
    const StepPlan plan = scheduler_->Plan(absl::Milliseconds(step_), device_);
    EXPECT_LE(plan.num_rows, options_.token_budget);
    EXPECT_LE(scheduler_->load().running, options_.max_num_seqs);
    device_.SetInUse(scheduler_->AdaptersInUse());
    device_.Promote(plan.promote, &rng_);
    if (rng_.Below(200) == 0 && !plan.empty()) {
      std::set<RequestId> failed;
      for (const PlannedSequence& s : plan.sequences) failed.insert(s.request);
      std::vector<RequestId> reported = scheduler_->AbortStep();
      EXPECT_EQ(std::set<RequestId>(reported.begin(), reported.end()), failed);
      for (const RequestId id : failed) End(id);
      scheduler_->CheckInvariants();
      return;
    }
    Run(plan);
    std::vector<SampledToken> sampled;
    for (const PlannedSequence& s : plan.sequences) Sample(s, &sampled);
    if (rng_.Below(50) == 0) MaybeCancel();
    scheduler_->Commit(sampled);
    if (rng_.Below(100) == 0) scheduler_->FlushPrefixCache();
    scheduler_->CheckInvariants();
    CheckIdentities();
  }

  // Steps until nothing is left; returns the number that ended in all.
  int64_t Drain() {
    ResumeAll();
    for (int i = 0; i < 20000 && !live_.empty(); ++i) Step();
    EXPECT_TRUE(scheduler_->idle());
    EXPECT_EQ(scheduler_->load().blocks_used, 0);
    scheduler_->FlushPrefixCache();
    EXPECT_EQ(scheduler_->load().blocks_cached, 0);
    return ended_;
  }
  int64_t longest_wait() const { return longest_wait_; }

 private:
  struct Live {
    SchedulerRequest request;
    std::vector<std::vector<Token>> outputs;
    std::vector<bool> finished;
    bool forked = false;
    bool paused = false;
    bool was_paused = false;
    int64_t arrived = 0;
  };

  RequestId RandomLive() {
    auto it = live_.begin();
    std::advance(it, static_cast<int64_t>(rng_.Below(live_.size())));
    return it->first;
  }

  void End(RequestId id) {
    ASSERT_EQ(live_.erase(id), 1u);
    ++ended_;
  }

  // None, one, or a composition of as many as there are slots; some begin to
  // act in the middle of the prompt.
  void AddAdapters(SchedulerRequest* r) {
    const uint64_t adapters = static_cast<uint64_t>(options_.adapters);
    uint64_t adapter = rng_.Below(adapters + 1);
    if (adapter == 0) return;
    KvDomain domain = r->domains[0].domain;
    const int parts =
        rng_.Below(4) == 0 ? std::min(options_.slots, options_.adapters) : 1;
    for (int i = 0; i < parts; ++i) {
      r->adapters.push_back(
          AdapterKey{"default", "a" + std::to_string(adapter), 1, {}});
      domain.value[1] = domain.value[1] * 100 + adapter;
      adapter = adapter % adapters + 1;
    }
    const uint64_t from = rng_.Below(r->prompt.size());
    if (from == 0 || rng_.Below(3) != 0) {
      r->domains[0].domain = domain;
      return;
    }
    domain.value[1] = domain.value[1] * 1000 + from;
    r->domains.push_back({static_cast<int32_t>(from), domain});
  }

  // The hash of a domain, mixed in where it begins.
  static uint64_t HashDomain(uint64_t h, const KvDomain& domain) {
    return HashNext(HashNext(h, static_cast<Token>(domain.value[0])),
                    static_cast<Token>(domain.value[1]));
  }
  static Token TokenAt(const Live& live, int32_t candidate, int64_t i) {
    const std::vector<Token>& prompt = live.request.prompt;
    const int64_t output = i - static_cast<int64_t>(prompt.size());
    return output < 0 ? prompt[static_cast<size_t>(i)]
                      : live.outputs[static_cast<size_t>(candidate)]
                                    [static_cast<size_t>(output)];
  }
  // The hash of the first `count` tokens of a candidate.
  static uint64_t HashOf(const Live& live, int32_t candidate, int64_t count) {
    uint64_t h = 0;
    auto domain = live.request.domains.begin();
    for (int64_t i = 0; i < count; ++i) {
      if (domain != live.request.domains.end() && domain->from_position == i) {
        h = HashDomain(h, (domain++)->domain);
      }
      h = HashNext(h, TokenAt(live, candidate, i));
    }
    return h;
  }
  // What the model says next: a function of tokens and candidate alone.
  static Token NextToken(uint64_t h, int32_t candidate) {
    return static_cast<Token>(HashNext(h, candidate + 77) %
                              static_cast<uint64_t>(kVocab));
  }

  uint64_t& Kv(std::span<const int32_t> table, int64_t position) {
    const int32_t block = table[static_cast<size_t>(position / kBlockSize)];
    return kv_[static_cast<size_t>(block * kBlockSize + position % kBlockSize)];
  }

  void Run(const StepPlan& plan) {
    for (const auto& [from, to] : plan.block_copies) {
      ++copies_;
      for (int64_t i = 0; i < kBlockSize; ++i) {
        kv_[static_cast<size_t>(to * kBlockSize + i)] =
            kv_[static_cast<size_t>(from * kBlockSize + i)];
      }
    }
    std::set<RequestId> seen;
    // All rows are written before any is read, as in a layer.
    for (const PlannedSequence& s : plan.sequences) {
      const Live& live = live_.at(s.request);
      EXPECT_FALSE(live.paused);
      for (int64_t p = s.begin; p < s.end; ++p) {
        Kv(s.block_table, p) = HashOf(live, s.candidate, p + 1);
      }
      for (const AdapterKey& key : live.request.adapters) {
        EXPECT_TRUE(device_.IsResident(key));
      }
    }
    for (const PlannedSequence& s : plan.sequences) {
      const Live& live = live_.at(s.request);
      for (int64_t p = 0; p < s.end; ++p) {
        ASSERT_EQ(Kv(s.block_table, p), HashOf(live, s.candidate, p + 1))
            << "position " << p << " of request " << s.request.value();
      }
      for (int64_t i = s.begin; i < s.end; ++i) {
        ASSERT_EQ(s.tokens[static_cast<size_t>(i - s.begin)],
                  TokenAt(live, s.candidate, i));
      }
      if (s.all_logits) {
        EXPECT_TRUE(!live.forked);
      }
    }
  }

  void Sample(const PlannedSequence& s, std::vector<SampledToken>* sampled) {
    if (!s.samples) return;
    Live& live = live_.at(s.request);
    const std::vector<SequenceId> ids = scheduler_->SequencesOf(s.request);
    int32_t first = s.candidate, last = s.candidate;
    if (!live.forked) {
      live.forked = true;
      longest_wait_ = std::max(longest_wait_, step_ - live.arrived);
      first = 0;
      last = live.request.num_candidates - 1;
    }
    for (int32_t c = first; c <= last; ++c) {
      auto& output = live.outputs[static_cast<size_t>(c)];
      const uint64_t h = HashOf(
          live, c,
          static_cast<int64_t>(live.request.prompt.size() + output.size()));
      const Token token = NextToken(h, c);
      output.push_back(token);
      const bool finished =
          static_cast<int32_t>(output.size()) == live.request.max_tokens ||
          token % 40 == 0;
      sampled->push_back({ids[static_cast<size_t>(c)], token, finished});
      if (finished) live.finished[static_cast<size_t>(c)] = true;
    }
    if (std::ranges::all_of(live.finished, [](bool b) { return b; })) {
      End(s.request);
    }
  }

  // The scheduler knows the requests that are alive, and no others.
  void CheckIdentities() {
    for (const auto& [id, live] : live_) {
      ASSERT_EQ(scheduler_->SequencesOf(id).size(), live.outputs.size());
    }
    ASSERT_EQ(scheduler_->idle(), live_.empty());
  }

  const SimOptions options_;
  Rng rng_;
  SimDevice device_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<uint64_t> kv_;
  std::map<RequestId, Live> live_;
  int64_t next_id_ = 1;
  int64_t step_ = 0;
  int64_t submitted_ = 0;
  int64_t ended_ = 0;
  int64_t copies_ = 0;
  int64_t longest_wait_ = 0;
};

class SchedulerSimTest : public testing::TestWithParam<uint64_t> {};

void RunSim(SimOptions options, int steps) {
  Sim sim(options);
  for (int i = 0; i < steps; ++i) {
    sim.MaybeArrive();
    sim.MaybeCancel();
    sim.MaybePause();
    sim.Step();
    if (i % 200 == 0) sim.ResumeAll();
    ASSERT_FALSE(testing::Test::HasFailure()) << "step " << i;
  }
  EXPECT_EQ(sim.Drain(), sim.submitted());  // Everyone ends, exactly once.
  EXPECT_GT(sim.preemptions(), 0);
  EXPECT_GT(sim.copies(), 0);
  if (options.prefix_caching) {
    EXPECT_GT(sim.cached_tokens(), 0);
  }
}

TEST_P(SchedulerSimTest, HoldsInvariantsWithFewBlocksAndSlots) {
  RunSim({.seed = GetParam()}, 2000);
}

TEST_P(SchedulerSimTest, HoldsInvariantsWithOneSlot) {
  RunSim({.seed = GetParam(), .blocks = 40, .adapters = 4, .slots = 1}, 1000);
}

TEST_P(SchedulerSimTest, HoldsInvariantsWhenNearlyNothingFits) {
  RunSim({.seed = GetParam(),
          .blocks = 17,
          .max_num_seqs = 4,
          .token_budget = 5,
          .adapters = 3,
          .slots = 2},
         1500);
}

TEST_P(SchedulerSimTest, HoldsInvariantsWithoutPrefixCache) {
  RunSim({.seed = GetParam(), .blocks = 20, .prefix_caching = false}, 1000);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SchedulerSimTest,
                         testing::Range<uint64_t>(0, 12));

// Popular adapters hold all slots all the time; a request for another one must
// get in nevertheless.
TEST(SchedulerStarvationTest, AColdAdapterGetsIntoASystemThatIsNeverIdle) {
  Rng rng(5);
  SimDevice device(2);
  SchedulerOptions o;
  o.num_blocks = 64;
  o.block_size = kBlockSize;
  o.max_num_seqs = 8;
  o.max_num_batched_tokens = 32;
  o.max_waiting_requests = 100;
  o.max_passes = 8;
  auto scheduler = Scheduler::Create(o);
  std::map<RequestId, int> left;
  int64_t next_id = 1;
  const auto add = [&](const std::string& name) {
    SchedulerRequest r;
    r.id = RequestId(next_id);
    r.arrival = absl::Seconds(next_id++);
    r.prompt = {1, 2, 3};
    r.max_tokens = 4;
    r.adapters = {AdapterKey{"default", name, 1, {}}};
    left[r.id] = 4;
    ASSERT_TRUE(scheduler->Add(std::move(r)));
  };
  int64_t cold_admitted_at = -1;
  RequestId cold;
  for (int step = 0; step < 400; ++step) {
    while (left.size() < 12) add(rng.Below(2) == 0 ? "hot1" : "hot2");
    if (step == 50) {
      cold = RequestId(next_id);
      add("cold");
    }
    device.SetInUse(scheduler->AdaptersInUse());
    const StepPlan plan = scheduler->Plan(absl::ZeroDuration(), device);
    device.SetInUse(scheduler->AdaptersInUse());
    device.Promote(plan.promote, &rng);
    std::vector<SampledToken> sampled;
    for (const PlannedSequence& s : plan.sequences) {
      if (s.request == cold && cold_admitted_at < 0) cold_admitted_at = step;
      if (!s.samples) continue;
      const bool finished = --left.at(s.request) == 0;
      sampled.push_back({s.sequence, 9, finished});
      if (finished) left.erase(s.request);
    }
    scheduler->Commit(sampled);
    scheduler->CheckInvariants();
  }
  EXPECT_GE(cold_admitted_at, 0);
  EXPECT_LE(cold_admitted_at, 100);
}

}  // namespace
}  // namespace lorikeet
