#include "adapters/host_cache.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/reason.h"

namespace lorikeet {

HostCache::HostCache(int64_t capacity_bytes)
    : capacity_bytes_(capacity_bytes), state_(std::make_shared<State>()) {
  CHECK_GT(capacity_bytes, 0);
}

HostCache::Lease HostCache::Hold(const AdapterKey& key, Entry& entry) {
  ++entry.holds;
  const int64_t bytes = std::max<int64_t>(1, entry.weights->size_bytes);
  state_->order.Use(
      &entry.standing,
      static_cast<double>(bytes) / static_cast<double>(capacity_bytes_),
      ReloadFromDisk(bytes));
  // A held entry is never removed, so the key finds it again.
  std::shared_ptr<void> hold(nullptr, [state = state_, key](void*) {
    MutexLock lock(&state->mu);
    --state->entries.at(key).holds;
  });
  return Lease(entry.weights, std::move(hold));
}

std::optional<HostCache::Lease> HostCache::Lookup(const AdapterKey& key) {
  MutexLock lock(&state_->mu);
  const auto it = state_->entries.find(key);
  if (it == state_->entries.end()) return std::nullopt;
  return Hold(key, it->second);
}

bool HostCache::MakeRoom(int64_t bytes, std::vector<AdapterKey>* evicted,
                         std::vector<Weights>* freed) {
  int64_t missing = state_->used_bytes + bytes - capacity_bytes_;
  std::vector<std::pair<EvictionOrder::Standing, AdapterKey>> candidates;
  int64_t evictable = 0;
  for (const auto& [key, entry] : state_->entries) {
    if (entry.holds > 0 || state_->pinned.contains(key)) continue;
    candidates.emplace_back(entry.standing, key);
    evictable += entry.weights->size_bytes;
  }
  if (missing > evictable) return false;
  std::sort(candidates.begin(), candidates.end(),
            [](const auto& a, const auto& b) {
              return EvictionOrder::GoesBefore(a.first, b.first);
            });
  for (const auto& [standing, key] : candidates) {
    if (missing <= 0) break;
    state_->order.OnEvicted(standing);
    const auto it = state_->entries.find(key);
    missing -= it->second.weights->size_bytes;
    state_->used_bytes -= it->second.weights->size_bytes;
    freed->push_back(std::move(it->second.weights));
    state_->entries.erase(it);
    evicted->push_back(key);
  }
  return true;
}

absl::StatusOr<HostCache::Lease> HostCache::Insert(
    const AdapterKey& key, Weights weights, std::vector<AdapterKey>* evicted) {
  std::vector<Weights> freed;  // goes after the lock
  MutexLock lock(&state_->mu);
  auto it = state_->entries.find(key);
  if (it == state_->entries.end()) {
    const int64_t bytes = weights->size_bytes;
    if (!MakeRoom(bytes, evicted, &freed)) {
      return WithReason(
          absl::ResourceExhaustedError(absl::StrCat(
              "adapter ", key.ToString(), " of ", bytes,
              " bytes does not fit the host budget of ", capacity_bytes_,
              " beside what is pinned or in use (", state_->used_bytes,
              " bytes)")),
          "HOST_FULL");
    }
    state_->used_bytes += bytes;
    it = state_->entries.emplace(key, Entry{std::move(weights)}).first;
  }
  return Hold(key, it->second);
}

bool HostCache::HasFreeRoom(int64_t bytes) const {
  MutexLock lock(&state_->mu);
  return state_->used_bytes + bytes <= capacity_bytes_;
}

int64_t HostCache::Remove(const AdapterKey& key) {
  Weights freed;
  MutexLock lock(&state_->mu);
  const auto it = state_->entries.find(key);
  if (it == state_->entries.end() || it->second.holds > 0) return 0;
  freed = std::move(it->second.weights);
  state_->entries.erase(it);
  state_->used_bytes -= freed->size_bytes;
  return freed->size_bytes;
}

bool HostCache::Contains(const AdapterKey& key) const {
  MutexLock lock(&state_->mu);
  return state_->entries.contains(key);
}

void HostCache::SetPinned(const AdapterKey& key, bool pinned) {
  MutexLock lock(&state_->mu);
  if (pinned) {
    state_->pinned.insert(key);
  } else {
    state_->pinned.erase(key);
  }
}

int64_t HostCache::used_bytes() const {
  MutexLock lock(&state_->mu);
  return state_->used_bytes;
}

int HostCache::count() const {
  MutexLock lock(&state_->mu);
  return static_cast<int>(state_->entries.size());
}

}  // namespace lorikeet
