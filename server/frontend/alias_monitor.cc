#include "server/frontend/alias_monitor.h"

#include "base/check.h"
#include "base/log.h"
#include "base/reason.h"

namespace lorikeet {
namespace {

constexpr size_t kMaxRollBacksWaiting = 64;
constexpr size_t kMaxRecords = 10000;
// Of the shown percentile, where no rule says it.
constexpr absl::Duration kDefaultWindow = absl::Minutes(5);

// Faults of a version, as against those of its caller or of a full server.
bool IsFaultOfVersion(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kFailedPrecondition:
      return true;
    case absl::StatusCode::kResourceExhausted:
      return ReasonOf(status) == "DEVICE_FULL" ||
             ReasonOf(status) == "HOST_FULL";
    default:
      return false;
  }
}

using TargetKey = std::pair<std::string, uint32_t>;

TargetKey KeyOf(const AdapterKey& key) { return {key.name, key.version}; }

}  // namespace

struct AliasMonitor::Subject {
  std::string tenant, alias;
  uint64_t etag = 0;
  TargetKey target;
  std::optional<RollbackRule> rule;
};

struct AliasMonitor::State {
  struct Target {
    int64_t requests = 0, errors = 0;
    OutcomeWindow window;
  };
  // Of one alias as it was at `etag`.
  struct Record {
    uint64_t etag = 0;
    std::map<TargetKey, Target> targets;
    AliasCounts::Shadow shadow;
    bool was_rolled_back = false;
  };

  State(AdapterStore& s, const Clock& c) : store(s), clock(c) {}

  // The record to count in; null for a request of an alias that has changed.
  Record* Find(const Subject& subject) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    // Of aliases that are gone, too: then all start anew.
    if (records.size() > kMaxRecords) records.clear();
    Record& record = records[{subject.tenant, subject.alias}];
    if (record.etag > subject.etag) return nullptr;
    if (record.etag < subject.etag) {
      record = Record();
      record.etag = subject.etag;
    }
    return &record;
  }
  void RollBack(const Subject& subject, const std::string& reason) {
    Change change;
    change.etag = subject.etag;
    change.actor = std::string(kServerActor);
    change.reason = reason;
    const absl::Status status =
        store.RollBackAlias(subject.tenant, subject.alias, change).status();
    Log(LogLevel::kWarning, "alias is rolled back by its rule",
        {{"alias", subject.alias},
         {"reason", reason},
         {"status", status.ok() ? "done" : std::string(status.message())}});
  }

  AdapterStore& store;
  const Clock& clock;
  mutable Mutex mu;
  BackgroundQueue* queue ABSL_GUARDED_BY(mu) = nullptr;  // null: it ended
  std::map<std::pair<std::string, std::string>, Record> records
      ABSL_GUARDED_BY(mu);
};

AliasMonitor::AliasMonitor(AdapterStore& store, Engine& engine,
                           const Clock& clock)
    : state_(std::make_shared<State>(store, clock)),
      shadows_(engine),
      queue_("alias-monitor", 1, kMaxRollBacksWaiting) {
  MutexLock lock(&state_->mu);
  state_->queue = &queue_;
}

AliasMonitor::~AliasMonitor() {
  MutexLock lock(&state_->mu);
  state_->queue = nullptr;
}

void AliasMonitor::Count(const std::shared_ptr<State>& state,
                         const Subject& subject, const StreamResult& result) {
  const bool is_error = IsFaultOfVersion(result.status);
  if ((!result.status.ok() && !is_error) || result.was_aborted) return;
  MutexLock lock(&state->mu);
  if (state->queue == nullptr) return;
  State::Record* const record = state->Find(subject);
  if (record == nullptr) return;
  State::Target& target = record->targets[subject.target];
  const absl::Duration now = state->clock.Now();
  ++target.requests;
  if (is_error) {
    ++target.errors;
    target.window.AddError(now);
  } else {
    target.window.AddSuccess(now, result.time_to_first_token);
  }
  if (!subject.rule.has_value() || record->was_rolled_back) return;
  const std::string reason =
      BrokenRule(*subject.rule, target.window.Sum(now, subject.rule->window));
  if (reason.empty()) return;
  // A full queue: the next request asks again.
  record->was_rolled_back = state->queue->TryAdd(
      [state, subject, reason] { state->RollBack(subject, reason); });
}

std::shared_ptr<TokenStream> AliasMonitor::Watch(
    const Route& route, std::shared_ptr<TokenStream> stream,
    EngineRequest copy) {
  CHECK(route.is_watched);
  const Subject subject{route.version->key.tenant, route.alias,
                        route.alias_etag, KeyOf(route.version->key),
                        route.rule};
  std::shared_ptr<ShadowTraffic::Run> run;
  if (route.shadow != nullptr) {
    copy.adapters = {{route.shadow, 1}};
    run = shadows_.Start(
        std::move(copy), [state = state_, subject](ShadowVerdict verdict) {
          MutexLock lock(&state->mu);
          State::Record* const record = state->Find(subject);
          if (record == nullptr) return;
          record->shadow.equal += verdict == ShadowVerdict::kEqual;
          record->shadow.different += verdict == ShadowVerdict::kDifferent;
          record->shadow.failed += verdict == ShadowVerdict::kFailed;
          record->shadow.skipped += verdict == ShadowVerdict::kSkipped;
        });
  }
  return std::make_shared<WatchedStream>(
      std::move(stream),
      [state = state_, subject, run = std::move(run)](StreamResult result) {
        Count(state, subject, result);
        if (run != nullptr) ShadowTraffic::Compare(run, std::move(result));
      });
}

AliasCounts AliasMonitor::CountsOf(const AliasInfo& alias) const {
  AliasCounts counts;
  MutexLock lock(&state_->mu);
  const auto it = state_->records.find({alias.tenant, alias.name});
  if (it == state_->records.end() || it->second.etag != alias.etag) {
    return counts;
  }
  const absl::Duration now = state_->clock.Now();
  const absl::Duration window =
      alias.rule.has_value() ? alias.rule->window : kDefaultWindow;
  for (const auto& [key, target] : it->second.targets) {
    counts.targets[key] = {target.requests, target.errors,
                           target.window.Sum(now, window).latency_p95};
  }
  counts.shadow = it->second.shadow;
  return counts;
}

}  // namespace lorikeet
