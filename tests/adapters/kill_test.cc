// kill -9 at random moments of registrations, updates, deletions, splits,
// promotions and roll backs, one after the other on the same directory: what
// was acknowledged is there, of the change that was cut all or nothing, and
// nothing else.
//
// A model of the catalogue says what has to be there. $LORIKEET_KILLS sets the
// number of kills.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "adapters/adapter_store.h"
#include "adapters/peft_reader.h"
#include "base/log.h"
#include "base/random.h"
#include "tests/adapters/fake_ops.h"
#include "tests/adapters/test_adapter.h"
#include "tests/testing/golden.h"

namespace lorikeet {
namespace {

namespace stdfs = std::filesystem;
using testing::FakeOps;
using testing::FreshTempDir;
using testing::SmallBase;
using testing::WriteAdapter;

constexpr int kDefaultKills = 25;
constexpr int kNames = 4;      // adapters a0.., aliases t0..
constexpr int kContents = 6;   // contents to register
constexpr int kMaxSteps = 30;  // of one life

int NumKills() {
  const char* text = std::getenv("LORIKEET_KILLS");
  int kills = 0;
  return text != nullptr && absl::SimpleAtoi(text, &kills) ? kills
                                                           : kDefaultKills;
}

// What the catalogue has to hold, by the rules of docs/ARCHITECTURE.md.
class Model {
 public:
  struct Step {
    enum class Kind {
      kRegister,
      kDelete,
      kSplit,
      kPromote,
      kRollBack,
      kDeleteAlias
    };
    Kind kind = Kind::kRegister;
    int name = 0;
    int content = 0;
    std::vector<AliasTarget> targets;
  };

  // A step that changes something now.
  Step Choose(Rng* rng) const {
    while (true) {
      Step s;
      s.kind = static_cast<Step::Kind>(rng->Below(6));
      s.name = static_cast<int>(rng->Below(kNames));
      s.content = static_cast<int>(rng->Below(kContents));
      if (s.kind == Step::Kind::kSplit) {
        for (const auto& [name, contents] : adapters_) {
          const uint32_t version =
              1 + static_cast<uint32_t>(rng->Below(contents.size()));
          s.targets.push_back({absl::StrCat("a", name), version,
                               1 + static_cast<uint32_t>(rng->Below(9))});
          if (s.targets.size() == 2) break;
        }
        if (s.targets.empty()) continue;
        if (s.targets.size() == 1) s.targets[0].weight = 1;
      }
      Model after = *this;
      after.Apply(s);
      if (after.ToString() != ToString()) return s;
    }
  }

  void Apply(const Step& s) {
    const auto alias = aliases_.find(s.name);
    switch (s.kind) {
      case Step::Kind::kRegister: {
        std::vector<int>& contents = adapters_[s.name];
        if (contents.empty() || contents.back() != s.content) {
          contents.push_back(s.content);
        }
        return;
      }
      case Step::Kind::kDelete:
        adapters_.erase(s.name);
        for (auto it = aliases_.begin(); it != aliases_.end();) {
          const std::string gone = absl::StrCat("a", s.name);
          const bool stays = RemoveTargets(
              [&](const std::string& a, uint32_t) { return a == gone; },
              &it->second);
          it = stays ? std::next(it) : aliases_.erase(it);
        }
        return;
      case Step::Kind::kSplit: {
        Alias& a = aliases_[s.name];
        if (!a.targets.empty() && !a.stable().IsSameVersion(s.targets[0])) {
          a.previous = a.stable();
        }
        a.targets = s.targets;
        return;
      }
      case Step::Kind::kPromote:
        if (alias == aliases_.end() || alias->second.targets.size() != 2) {
          return;
        }
        alias->second = Promoted(alias->second, alias->second.targets[1]);
        return;
      case Step::Kind::kRollBack:
        if (alias != aliases_.end()) {
          const auto back = RolledBack(alias->second);
          if (back.ok()) alias->second = *back;
        }
        return;
      case Step::Kind::kDeleteAlias:
        aliases_.erase(s.name);
        return;
    }
  }

  // "a0=3,1 t1=a0@2:5 a1@1:2<a0@1": contents of versions, targets, previous.
  std::string ToString() const {
    std::string text;
    for (const auto& [name, contents] : adapters_) {
      absl::StrAppend(&text, "a", name, "=");
      for (const int content : contents) absl::StrAppend(&text, content, ",");
      absl::StrAppend(&text, " ");
    }
    for (const auto& [name, alias] : aliases_) {
      absl::StrAppend(&text, "t", name, "=", alias.DescribeTargets(), "<",
                      alias.previous ? alias.previous->ToString() : "", " ");
    }
    return text;
  }

 private:
  std::map<int, std::vector<int>> adapters_;  // contents of the versions
  std::map<int, Alias> aliases_;
};

class KillTest : public ::testing::Test {
 protected:
  KillTest() {
    SetLogLevel(LogLevel::kOff);
    for (int i = 0; i < kContents; ++i) {
      WriteAdapter(Source(i), static_cast<float>(i + 1));
      content_of_[*DigestOfAdapter(fs_, Source(i), PeftLimits())] = i;
    }
  }
  ~KillTest() override { SetLogLevel(LogLevel::kInfo); }

  std::string Source(int content) const {
    return absl::StrCat(root_, "/source-", content);
  }
  std::unique_ptr<AdapterStore> Open() {
    AdapterStoreOptions options;
    options.state_dir = dir_;
    options.host_bytes = options.device_bytes = 1 << 20;
    options.max_device_adapters = 4;
    auto store = AdapterStore::Open(fs_, clock_, SmallBase(), ops_, options);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }

  absl::Status Do(AdapterStore& store, const Model::Step& s) {
    using Kind = Model::Step::Kind;
    const std::string adapter = absl::StrCat("a", s.name);
    const std::string alias = absl::StrCat("t", s.name);
    switch (s.kind) {
      case Kind::kRegister: {
        AdapterStore::RegisterRequest r;
        r.name = adapter;
        r.path = Source(s.content);
        r.trusted_path = true;
        r.mode = AdapterStore::RegisterRequest::Mode::kCreateOrUpdate;
        return store.Register(r).status();
      }
      case Kind::kDelete:
        return store.FinishDelete("default", adapter);
      case Kind::kSplit: {
        AdapterStore::AliasRequest r;
        r.tenant = "default";
        r.alias = alias;
        for (const AliasTarget& t : s.targets) {
          r.targets.push_back({*AdapterRef::Parse(t.ToString()), t.weight});
        }
        return store.PutAlias(r).status();
      }
      case Kind::kPromote:
        return store.PromoteAlias("default", alias, std::nullopt, {}).status();
      case Kind::kRollBack:
        return store.RollBackAlias("default", alias, {}).status();
      case Kind::kDeleteAlias:
        return store.DeleteAlias("default", alias, {});
    }
    return absl::InternalError("unknown step");
  }

  // The catalogue as Model::ToString writes it.
  std::string StateOf(AdapterStore& store) {
    std::string text;
    for (const AdapterInfo& info : store.ListAll("default")) {
      absl::StrAppend(&text, info.name, "=");
      const auto versions = store.ListVersions("default", info.name);
      for (auto v = versions->rbegin(); v != versions->rend(); ++v) {
        absl::StrAppend(&text, content_of_.at(v->key.digest), ",");
      }
      absl::StrAppend(&text, " ");
    }
    for (const AliasInfo& alias : store.ListAliases("default")) {
      absl::StrAppend(&text, alias.name, "=", alias.DescribeTargets(), "<",
                      alias.previous ? alias.previous->ToString() : "", " ");
    }
    return text;
  }

  size_t TrailLength(AdapterStore& store) {
    return store.ReadAudit({"default", "", 0, 1 << 20})->size();
  }

  // Content of all versions and of nothing else, whole.
  void ExpectWhole(AdapterStore& store) {
    std::set<std::string> expected, found;
    for (const AdapterInfo& info : store.ListAll("default")) {
      const auto versions = store.ListVersions("default", info.name);
      for (const AdapterVersionInfo& v : *versions) {
        expected.insert(v.key.digest.ToHex());
      }
    }
    for (const auto& entry : stdfs::directory_iterator(dir_ + "/adapters")) {
      const std::string name = entry.path().filename();
      found.insert(name);
      const auto digest = DigestOfAdapter(fs_, entry.path(), PeftLimits());
      ASSERT_TRUE(digest.ok()) << digest.status();
      EXPECT_EQ(digest->ToHex(), name);
    }
    EXPECT_EQ(found, expected);
    EXPECT_TRUE(stdfs::is_empty(dir_ + "/tmp"));
  }

  // Lives in a child and takes steps until it is killed, `steps` and `delay`
  // after its start. Returns how many it was told are done.
  int LiveAndDie(const std::vector<Model::Step>& plan, int steps,
                 absl::Duration delay) {
    int pipe_ends[2];
    EXPECT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(pipe_ends[0]);
      const auto store = Open();
      if (store == nullptr) ::_exit(1);
      for (const Model::Step& step : plan) {
        if (!Do(*store, step).ok()) ::_exit(2);
        if (::write(pipe_ends[1], "x", 1) != 1) ::_exit(3);
      }
      ::pause();
      ::_exit(0);
    }
    ::close(pipe_ends[1]);
    int done = 0;
    char c;
    while (done < steps && ::read(pipe_ends[0], &c, 1) == 1) ++done;
    lorikeet::SleepFor(delay);
    ::kill(child, SIGKILL);
    while (::read(pipe_ends[0], &c, 1) == 1) ++done;
    ::close(pipe_ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << "exit " << WEXITSTATUS(status);
    return done;
  }

  PosixFileSystem fs_;
  SystemClock clock_;
  FakeOps ops_;
  const std::string root_ = FreshTempDir("kill9");
  const std::string dir_ = root_ + "/state";
  absl::flat_hash_map<Digest, int> content_of_;
};

TEST_F(KillTest, NothingIsLostPhantomOrTorn) {
  Rng rng(20261125);
  Model model;
  size_t trail = 0;
  int cut_before = 0, cut_after = 0;
  const int kills = NumKills();
  for (int kill = 0; kill < kills; ++kill) {
    SCOPED_TRACE(absl::StrCat("kill ", kill));
    std::vector<Model::Step> plan;
    std::vector<Model> states = {model};
    for (int i = 0; i < kMaxSteps; ++i) {
      plan.push_back(states.back().Choose(&rng));
      states.push_back(states.back());
      states.back().Apply(plan.back());
    }
    const int steps = static_cast<int>(rng.Below(6));
    const absl::Duration delay = absl::Microseconds(rng.Below(15000));
    const int done = LiveAndDie(plan, steps, delay);
    ASSERT_GE(done, steps);
    const auto store = Open();
    ASSERT_NE(store, nullptr);
    const std::string state = StateOf(*store);
    const size_t d = static_cast<size_t>(done);
    const std::string before = states[d].ToString();
    const std::string after =
        d < plan.size() ? states[d + 1].ToString() : before;
    // Lost: an acknowledged step is missing. Phantom: something else is there.
    ASSERT_THAT(state, ::testing::AnyOf(before, after));
    const bool is_after = state != before;
    (is_after ? cut_after : cut_before) += 1;
    model = states[d + (is_after ? 1 : 0)];
    // The trail has one entry a step: none lost, none invented.
    trail += d + (is_after ? 1 : 0);
    ASSERT_EQ(TrailLength(*store), trail);
    ExpectWhole(*store);
  }
  std::printf(
      "%d kills: 0 lost, 0 phantom, 0 torn; %d cut before and %d after "
      "the commit of a step, %zu steps\n",
      kills, cut_before, cut_after, trail);
  RecordProperty("kills", kills);
}

// ---- recovery ---------------------------------------------------------------

// Writes what 10,000 registrations would leave, without their syncs.
void FillRegistry(const std::string& dir, int adapters) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((dir + "/registry.db").c_str(), &db), SQLITE_OK);
  const auto run = [&](const std::string& sql) {
    ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr),
              SQLITE_OK)
        << sqlite3_errmsg(db);
  };
  run("BEGIN");
  const std::string base = SmallBase().fingerprint.ToHex();
  for (int i = 0; i < adapters; ++i) {
    const std::string content =
        WriteAdapter(dir + "/new", 1 + static_cast<float>(i) / 16384);
    PosixFileSystem fs;
    const std::string digest =
        DigestOfAdapter(fs, content, PeftLimits())->ToHex();
    stdfs::rename(content, absl::StrCat(dir, "/adapters/", digest));
    run(absl::StrCat("INSERT INTO adapters VALUES ('default', 'n", i,
                     "', 'u', '', '', '[]', 0, ", i, ", 1, 1, '')"));
    run(absl::StrCat(
        "INSERT INTO versions VALUES ('default', 'n", i, "', 1, '", digest,
        "', '", base,
        "', 1, 2, 4.0, 0, '[\"q_proj\"]', '[]', "
        "'[[\"model.layers.0.self_attn.q_proj\",2,2.0]]', 400, '{}')"));
    run(absl::StrCat("INSERT INTO aliases VALUES ('default', 't", i, "', ", i,
                     ", NULL, NULL, NULL, NULL)"));
    run(absl::StrCat("INSERT INTO alias_targets VALUES ('default', 't", i,
                     "', 'serve', 0, 'n", i, "', 1, 1, 0)"));
  }
  run("COMMIT");
  sqlite3_close(db);
}

TEST_F(KillTest, TenThousandAdaptersAreThereAgainAfterAKill) {
  constexpr int kAdapters = 10000;
  Open().reset();
  FillRegistry(dir_, kAdapters);
  std::vector<Model::Step> plan(3);
  for (int i = 0; i < 3; ++i) plan[static_cast<size_t>(i)].content = i;
  const int done = LiveAndDie(plan, 3, absl::ZeroDuration());
  EXPECT_EQ(done, 3);
  const absl::Duration start = clock_.Now();
  const auto store = Open();
  const absl::Duration took = clock_.Now() - start;
  ASSERT_NE(store, nullptr);
  EXPECT_EQ(store->ListAll("default").size(), kAdapters + 1u);
  EXPECT_EQ(store->ListAliases("default").size(), size_t{kAdapters});
  std::printf("recovery with %d adapters and aliases: %s\n", kAdapters,
              absl::FormatDuration(took).c_str());
  RecordProperty("recovery_ms", absl::StrCat(absl::ToDoubleMilliseconds(took)));
}

}  // namespace
}  // namespace lorikeet
