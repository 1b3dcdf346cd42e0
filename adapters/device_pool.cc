#include "adapters/device_pool.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace lorikeet {

DevicePool::DevicePool(int64_t capacity_bytes, int num_slots,
                       const Clock& clock, std::function<void()> released)
    : capacity_bytes_(capacity_bytes),
      num_slots_(num_slots),
      clock_(clock),
      state_(std::make_shared<State>()) {
  CHECK_GT(capacity_bytes, 0);
  CHECK_GT(num_slots, 0);
  state_->released = std::move(released);
}

void DevicePool::CountUse(Entry* entry) {
  // Bytes or slots, whatever it takes more of.
  const double share = std::max(
      static_cast<double>(entry->bytes) / static_cast<double>(capacity_bytes_),
      1.0 / num_slots_);
  state_->order.Use(&entry->standing, share, ReloadFromHost(entry->bytes));
}

DevicePool::Room DevicePool::Plan(const AdapterKey& key, int64_t bytes,
                                  std::vector<AdapterKey>* victims) const {
  int64_t missing_bytes = state_->used_bytes + bytes - capacity_bytes_;
  int64_t missing_slots =
      static_cast<int64_t>(state_->entries.size()) + 1 - num_slots_;
  int64_t pinned_bytes = 0, pinned_slots = 0;
  std::vector<std::pair<EvictionOrder::Standing, const AdapterKey*>> candidates;
  for (const auto& [other, entry] : state_->entries) {
    if (other == key) {
      missing_bytes -= entry.bytes;
      missing_slots -= 1;
      continue;
    }
    if (state_->pinned.contains(other)) {
      pinned_bytes += entry.bytes;
      pinned_slots += 1;
      continue;
    }
    const bool is_held = entry.users != nullptr && entry.users->load() > 0;
    const bool is_in_grace =
        entry.is_fresh && is_held && clock_.Now() - entry.published < kGrace;
    if (entry.slot == nullptr || entry.leases > 0 || is_in_grace) continue;
    candidates.emplace_back(entry.standing, &other);
    candidates.back().first.is_waited_for = is_held;
  }
  if (bytes + pinned_bytes > capacity_bytes_ || pinned_slots >= num_slots_) {
    return Room::kNever;
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const auto& a, const auto& b) {
              return EvictionOrder::GoesBefore(a.first, b.first);
            });
  for (const auto& [standing, victim] : candidates) {
    if (missing_bytes <= 0 && missing_slots <= 0) break;
    missing_bytes -= state_->entries.at(*victim).bytes;
    missing_slots -= 1;
    victims->push_back(*victim);
  }
  return missing_bytes <= 0 && missing_slots <= 0 ? Room::kFree : Room::kBusy;
}

DevicePool::Room DevicePool::Reserve(const AdapterKey& key, int64_t bytes,
                                     std::vector<AdapterKey>* evicted) {
  std::vector<Slot> freed;  // goes after the lock
  MutexLock lock(&state_->mu);
  std::vector<AdapterKey> victims;
  const Room room = Plan(key, bytes, &victims);
  if (room != Room::kFree) return room;
  for (const AdapterKey& victim : victims) {
    const auto it = state_->entries.find(victim);
    state_->used_bytes -= it->second.bytes;
    state_->order.OnEvicted(it->second.standing);
    freed.push_back(std::move(it->second.slot));
    state_->entries.erase(it);
    evicted->push_back(victim);
  }
  Entry& entry = state_->entries[key];
  CHECK(entry.slot == nullptr);
  state_->used_bytes += bytes - entry.bytes;
  entry.bytes = bytes;
  return Room::kFree;
}

DevicePool::Room DevicePool::TestRoom(const AdapterKey& key,
                                      int64_t bytes) const {
  MutexLock lock(&state_->mu);
  std::vector<AdapterKey> victims;
  return Plan(key, bytes, &victims);
}

void DevicePool::CancelReservation(const AdapterKey& key) {
  MutexLock lock(&state_->mu);
  const auto it = state_->entries.find(key);
  if (it == state_->entries.end() || it->second.slot != nullptr) return;
  state_->used_bytes -= it->second.bytes;
  state_->entries.erase(it);
}

void DevicePool::Publish(const AdapterKey& key, Slot slot, Users users) {
  MutexLock lock(&state_->mu);
  const auto it = state_->entries.find(key);
  CHECK(it != state_->entries.end() && it->second.slot == nullptr);
  Entry& entry = it->second;
  entry.slot = std::move(slot);
  entry.users = std::move(users);
  CountUse(&entry);
  entry.is_fresh = true;
  entry.published = clock_.Now();
}

DeviceLease DevicePool::TryLease(const AdapterKey& key) {
  MutexLock lock(&state_->mu);
  const auto it = state_->entries.find(key);
  if (it == state_->entries.end() || it->second.slot == nullptr) {
    return DeviceLease();
  }
  Entry& entry = it->second;
  ++entry.leases;
  CountUse(&entry);
  entry.is_fresh = false;
  // A leased entry is never removed, so the key finds it again.
  std::shared_ptr<void> pin(nullptr, [state = state_, key](void*) {
    bool last = false;
    {
      MutexLock deleter_lock(&state->mu);
      last = --state->entries.at(key).leases == 0;
    }
    if (last) state->released();
  });
  return DeviceLease(entry.slot, std::move(pin));
}

bool DevicePool::Contains(const AdapterKey& key) const {
  MutexLock lock(&state_->mu);
  const auto it = state_->entries.find(key);
  return it != state_->entries.end() && it->second.slot != nullptr;
}

bool DevicePool::IsLeased(const AdapterKey& key) const {
  MutexLock lock(&state_->mu);
  const auto it = state_->entries.find(key);
  return it != state_->entries.end() && it->second.leases > 0;
}

int64_t DevicePool::Remove(const AdapterKey& key) {
  Slot freed;
  MutexLock lock(&state_->mu);
  const auto it = state_->entries.find(key);
  if (it == state_->entries.end() || it->second.slot == nullptr ||
      it->second.leases > 0) {
    return 0;
  }
  freed = std::move(it->second.slot);
  const int64_t bytes = it->second.bytes;
  state_->used_bytes -= bytes;
  state_->entries.erase(it);
  return bytes;
}

void DevicePool::SetPinned(const AdapterKey& key, bool pinned) {
  MutexLock lock(&state_->mu);
  if (pinned) {
    state_->pinned.insert(key);
  } else {
    state_->pinned.erase(key);
  }
}

int64_t DevicePool::used_bytes() const {
  MutexLock lock(&state_->mu);
  return state_->used_bytes;
}

int DevicePool::count() const {
  MutexLock lock(&state_->mu);
  int count = 0;
  for (const auto& [key, entry] : state_->entries) {
    count += entry.slot != nullptr;
  }
  return count;
}

}  // namespace lorikeet
