// The life of a load: queued -> running -> gone (done)
//                                       -> waiting -> queued
//                                       -> failed  -> queued (after a while)
// Locks: signal_->mu before mu_ before those of host_ and device_.

#include "adapters/adapter_loader.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/reason.h"

namespace lorikeet {
namespace {

// How often a waiting load looks for room by itself: requests that end without
// having taken a lease tell nobody.
constexpr absl::Duration kPollPeriod = absl::Milliseconds(50);
// Failed loads that nobody asks for any more are forgotten beyond this number.
constexpr size_t kMaxFailed = 1000;

absl::Status NoRoom(const AdapterKey& key, int64_t bytes,
                    const DevicePool& device) {
  return WithReason(
      absl::ResourceExhaustedError(absl::StrCat(
          "adapter ", key.ToString(),
          bytes > 0 ? absl::StrCat(" of ", bytes, " bytes") : "",
          " does not fit the device beside what is pinned or in use (",
          device.used_bytes(), " of ", device.capacity_bytes(), " bytes, ",
          device.count(), " of ", device.num_slots(), " slots)")),
      "DEVICE_FULL");
}

}  // namespace

AdapterLoader::AdapterLoader(Ops& ops, const Clock& clock, Options options)
    : ops_(ops),
      clock_(clock),
      options_(std::move(options)),
      signal_(std::make_shared<Signal>()),
      host_(options_.host_bytes),
      device_(options_.device_bytes, options_.device_slots, clock,
              [signal = signal_] {
                MutexLock lock(&signal->mu);
                if (signal->loader == nullptr) return;
                MutexLock loader_lock(&signal->loader->mu_);
                signal->loader->RetryWaiting();
              }) {
  CHECK_GE(options_.threads, 1);
  {
    MutexLock lock(&signal_->mu);
    signal_->loader = this;
  }
  for (int i = 0; i < options_.threads; ++i) {
    threads_.push_back(std::make_unique<BackgroundThread>(
        absl::StrCat("loader-", i), [this] { Loop(); }));
  }
}

AdapterLoader::~AdapterLoader() {
  {
    MutexLock lock(&signal_->mu);
    signal_->loader = nullptr;
  }
  {
    MutexLock lock(&mu_);
    is_ending_ = true;
    changed_.SignalAll();
  }
  threads_.clear();
}

bool AdapterLoader::HasTier(const AdapterKey& key, Tier tier) const {
  switch (tier) {
    case Tier::kDisk:
      return true;
    case Tier::kHost:
      return host_.Contains(key);
    case Tier::kDevice:
      return device_.Contains(key);
  }
  return false;
}

Tier AdapterLoader::TierOf(const AdapterKey& key) const {
  if (device_.Contains(key)) return Tier::kDevice;
  return host_.Contains(key) ? Tier::kHost : Tier::kDisk;
}

void AdapterLoader::Start(const AdapterKey& key, const DevicePool::Users& users,
                          Tier tier, bool waits_for_room) {
  LoadState& load = loads_[key];
  load.is_hint = false;
  const bool is_new = load.users == nullptr;
  const bool was_failed = load.phase == LoadState::Phase::kFailed;
  load.tier = is_new || was_failed ? tier : std::max(load.tier, tier);
  load.waits_for_room |= waits_for_room;
  load.is_cancelled = false;
  if (!is_new && !was_failed) return;
  load.users = users;
  load.waits_for_room = waits_for_room;
  load.error = absl::OkStatus();
  load.phase = LoadState::Phase::kQueued;
  ready_.push_back(key);
  changed_.SignalAll();
}

void AdapterLoader::Prefetch(const AdapterKey& key, DevicePool::Users users) {
  if (device_.Contains(key)) return;
  MutexLock lock(&mu_);
  const auto it = loads_.find(key);
  if (it != loads_.end() && it->second.phase == LoadState::Phase::kFailed &&
      it->second.is_final &&
      clock_.Now() - it->second.failed_at < kRetryAfter) {
    return;
  }
  Start(key, users, Tier::kDevice, /*waits_for_room=*/true);
}

void AdapterLoader::Hint(const AdapterKey& key, DevicePool::Users users,
                         int64_t size_bytes) {
  if (host_.Contains(key) || !host_.HasFreeRoom(size_bytes)) return;
  MutexLock lock(&mu_);
  if (loads_.contains(key)) return;  // it comes anyway, or failed just now
  Start(key, users, Tier::kHost, /*waits_for_room=*/false);
  loads_.at(key).is_hint = true;
}

absl::Status AdapterLoader::LoadError(const AdapterKey& key) {
  MutexLock lock(&mu_);
  const auto it = loads_.find(key);
  if (it == loads_.end() || it->second.phase != LoadState::Phase::kFailed ||
      !it->second.is_final) {
    return absl::OkStatus();
  }
  return it->second.error;
}

void AdapterLoader::SetLoadedCallback(std::function<void()> callback) {
  MutexLock lock(&callback_mu_);
  callback_ = std::move(callback);
}

absl::Status AdapterLoader::Load(const AdapterKey& key, DevicePool::Users users,
                                 Tier tier, absl::Duration timeout) {
  const absl::Duration deadline = clock_.Now() + timeout;
  MutexLock lock(&mu_);
  bool started = false;
  while (!HasTier(key, tier)) {
    const auto it = loads_.find(key);
    if (started && it != loads_.end() &&
        it->second.phase == LoadState::Phase::kFailed) {
      return it->second.error;
    }
    if (started && it != loads_.end() &&
        it->second.phase == LoadState::Phase::kWaiting) {
      return NoRoom(key, it->second.size_bytes, device_);
    }
    // Not yet asked for, or done and evicted at once.
    if (!started || it == loads_.end()) {
      Start(key, users, tier, /*waits_for_room=*/false);
      started = true;
      continue;
    }
    const absl::Duration left = deadline - clock_.Now();
    if (left <= absl::ZeroDuration() || changed_.WaitFor(&mu_, left)) {
      if (HasTier(key, tier)) break;
      return absl::DeadlineExceededError(
          absl::StrCat("adapter ", key.ToString(), " is not in ", Name(tier),
                       " memory after ", absl::FormatDuration(timeout)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> AdapterLoader::Unload(const AdapterKey& key,
                                              Tier tier) {
  {
    MutexLock lock(&mu_);
    auto it = loads_.find(key);
    while (it != loads_.end() &&
           it->second.phase == LoadState::Phase::kRunning) {
      it->second.is_cancelled = true;
      changed_.Wait(&mu_);
      it = loads_.find(key);
    }
    if (it != loads_.end()) {
      num_waiting_ -= it->second.phase == LoadState::Phase::kWaiting;
      loads_.erase(it);  // its place in ready_ is skipped
      changed_.SignalAll();
    }
  }
  if (tier == Tier::kDevice) return 0;
  int64_t freed = device_.Remove(key);
  if (freed == 0 && device_.Contains(key)) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat(
                          "adapter ", key.ToString(), " is in use")),
                      "ADAPTER_IN_USE");
  }
  if (tier == Tier::kDisk) freed += host_.Remove(key);
  MutexLock lock(&mu_);
  RetryWaiting();
  return freed;
}

void AdapterLoader::SetPinned(const AdapterKey& key, bool pinned) {
  host_.SetPinned(key, pinned);
  device_.SetPinned(key, pinned);
  if (pinned) return;
  MutexLock lock(&mu_);
  RetryWaiting();
}

AdapterStore::Residency AdapterLoader::GetResidency() {
  AdapterStore::Residency r;
  r.host_adapters = host_.count();
  r.host_bytes = host_.used_bytes();
  r.host_bytes_max = host_.capacity_bytes();
  r.device_adapters = device_.count();
  r.device_slots = device_.num_slots();
  r.device_bytes = device_.used_bytes();
  r.device_bytes_max = device_.capacity_bytes();
  r.loads = loads_done_.load();
  r.evictions = evictions_.load();
  return r;
}

void AdapterLoader::RetryWaiting() {
  if (num_waiting_ == 0) return;
  for (auto& [key, load] : loads_) {
    if (load.phase != LoadState::Phase::kWaiting ||
        device_.TestRoom(key, load.size_bytes) == DevicePool::Room::kBusy) {
      continue;
    }
    load.phase = LoadState::Phase::kQueued;
    --num_waiting_;
    ready_.push_back(key);
    changed_.SignalAll();
  }
}

void AdapterLoader::Loop() {
  while (true) {
    AdapterKey key;
    {
      MutexLock lock(&mu_);
      while (ready_.empty() && !is_ending_) {
        if (num_waiting_ == 0) {
          changed_.Wait(&mu_);
        } else if (changed_.WaitFor(&mu_, kPollPeriod)) {
          RetryWaiting();
        }
      }
      if (is_ending_) return;
      key = std::move(ready_.front());
      ready_.pop_front();
      const auto it = loads_.find(key);
      if (it == loads_.end() || it->second.phase != LoadState::Phase::kQueued) {
        continue;  // unloaded meanwhile
      }
      it->second.phase = LoadState::Phase::kRunning;
    }
    Run(key);
  }
}

void AdapterLoader::Run(const AdapterKey& key) {
  Tier tier;
  int64_t size_bytes;
  DevicePool::Users users;
  {
    MutexLock lock(&mu_);
    const LoadState& load = loads_.at(key);
    tier = load.tier;
    size_bytes = load.size_bytes;
    users = load.users;
  }
  std::vector<AdapterKey> moved;
  const Outcome outcome = Execute(key, tier, size_bytes, users, &moved);
  evictions_.fetch_add(static_cast<int64_t>(moved.size()));
  moved.push_back(key);
  {
    MutexLock lock(&mu_);
    Finish(key, tier, outcome);
    changed_.SignalAll();
  }
  if (options_.moved) options_.moved(moved);
  MutexLock lock(&callback_mu_);
  if (callback_) callback_();
}

void AdapterLoader::Finish(const AdapterKey& key, Tier tier,
                           const Outcome& outcome) {
  const auto it = loads_.find(key);
  LoadState& load = it->second;
  load.size_bytes = outcome.size_bytes;
  const bool is_busy = outcome.room == DevicePool::Room::kBusy;
  if (load.is_cancelled || (load.is_hint && !outcome.status.ok())) {
    loads_.erase(it);
  } else if (is_busy && load.waits_for_room) {
    load.phase = LoadState::Phase::kWaiting;
    ++num_waiting_;
    // A lease may have been dropped since.
    RetryWaiting();
  } else if (!outcome.status.ok() || outcome.room != DevicePool::Room::kFree) {
    load.phase = LoadState::Phase::kFailed;
    load.error = outcome.status.ok() ? NoRoom(key, load.size_bytes, device_)
                                     : outcome.status;
    load.is_final = !is_busy;
    load.failed_at = clock_.Now();
    if (load.is_final)
      Log(LogLevel::kWarning, "adapter is not loaded",
          {{"adapter", key.ToString()},
           {"error", std::string(load.error.message())}});
    if (loads_.size() > kMaxFailed) {
      absl::erase_if(loads_, [&](const auto& other) {
        return other.second.phase == LoadState::Phase::kFailed &&
               other.first != key;
      });
    }
  } else if (load.tier > tier) {
    // Somebody asked for more meanwhile.
    load.phase = LoadState::Phase::kQueued;
    ready_.push_back(key);
  } else {
    loads_.erase(it);
  }
}

AdapterLoader::Outcome AdapterLoader::Execute(
    const AdapterKey& key, Tier tier, int64_t size_bytes,
    const DevicePool::Users& users, std::vector<AdapterKey>* evicted) {
  Outcome outcome;
  outcome.size_bytes = size_bytes;
  if (HasTier(key, tier)) return outcome;
  // Not worth reading when there will be no place for it.
  if (tier == Tier::kDevice) {
    outcome.room = device_.TestRoom(key, size_bytes);
    if (outcome.room != DevicePool::Room::kFree) return outcome;
  }
  std::optional<HostCache::Lease> lease = host_.Lookup(key);
  HostCache::Weights weights;
  if (lease.has_value()) {
    weights = lease->weights();
  } else {
    absl::StatusOr<HostCache::Weights> read = options_.read(key);
    if (!read.ok()) {
      outcome.status = read.status();
      return outcome;
    }
    weights = *std::move(read);
    absl::StatusOr<HostCache::Lease> inserted =
        host_.Insert(key, weights, evicted);
    if (inserted.ok()) {
      lease = *std::move(inserted);
    } else if (tier == Tier::kHost) {
      outcome.status = inserted.status();
    }
    // On its way to the device it may pass the host without staying.
  }
  if (tier != Tier::kDevice) return outcome;
  return ToDevice(key, *weights, size_bytes, users, evicted);
}

AdapterLoader::Outcome AdapterLoader::ToDevice(
    const AdapterKey& key, const AdapterWeights& weights, int64_t size_bytes,
    const DevicePool::Users& users, std::vector<AdapterKey>* evicted) {
  Outcome outcome;
  outcome.size_bytes = std::max(size_bytes, weights.device_bytes());
  outcome.room = device_.Reserve(key, outcome.size_bytes, evicted);
  if (outcome.room != DevicePool::Room::kFree) return outcome;
  absl::StatusOr<DevicePool::Slot> slot =
      weights.Pack(ops_, options_.base.has_value() ? &*options_.base : nullptr,
                   ++last_generation_);
  if (!slot.ok()) {
    device_.CancelReservation(key);
    outcome.status = slot.status();
    return outcome;
  }
  const int64_t actual = (*slot)->size_bytes();
  outcome.size_bytes = actual;
  outcome.room = device_.Reserve(key, actual, evicted);
  if (outcome.room != DevicePool::Room::kFree) {
    device_.CancelReservation(key);
    return outcome;
  }
  device_.Publish(key, *std::move(slot), users);
  loads_done_.fetch_add(1);
  return outcome;
}

}  // namespace lorikeet
