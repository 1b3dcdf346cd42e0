#include "server/engine/adapter_residency.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace lorikeet {
namespace {

// Each step looks at this many adapters whose turn has not come.
constexpr size_t kMaxHints = 4;

bool Contains(std::span<const AdapterKey> keys, const AdapterKey& key) {
  return std::ranges::find(keys, key) != keys.end();
}

}  // namespace

AdapterResidency::AdapterResidency(AdapterStore& store)
    : store_(store), num_slots_(store.GetResidency().device_slots) {}

void AdapterResidency::Begin(std::span<const AdapterKey> in_use) {
  in_use_.assign(in_use.begin(), in_use.end());
  for (const AdapterKey& key : in_use) CHECK(IsLeased(key));
}

bool AdapterResidency::IsResident(const AdapterKey& key) const {
  if (leases_.contains(key)) return true;
  DeviceLease lease = store_.TryLease(key);
  if (!lease) return false;
  leases_.emplace(key, std::move(lease));
  return true;
}

bool AdapterResidency::HasRoomFor(std::span<const AdapterKey> keys) const {
  const int64_t others = std::ranges::count_if(
      in_use_, [&](const AdapterKey& key) { return !Contains(keys, key); });
  return others + static_cast<int64_t>(keys.size()) <= num_slots_;
}

const LoraSlot* AdapterResidency::SlotOf(const AdapterKey& key) const {
  const auto it = leases_.find(key);
  CHECK(it != leases_.end());
#ifdef LORIKEET_SEED_STALE_SLOT  // right_adapter_test
  // What the name had first, whatever was loaded since.
  static auto* const first = new absl::flat_hash_map<std::string, DeviceLease>;
  DeviceLease& stale = (*first)[key.name];
  if (!stale) stale = store_.TryLease(key);
  return stale.slot();
#endif
  return it->second.slot();
}

std::vector<std::pair<AdapterKey, absl::Status>> AdapterResidency::Finish(
    std::span<const AdapterKey> in_use, std::span<const AdapterKey> wanted) {
  // At least one: it takes the first slot that is given up.
  const size_t count = static_cast<size_t>(std::clamp<int64_t>(
      num_slots_ - static_cast<int64_t>(in_use.size()), 1,
      std::max<int64_t>(1, static_cast<int64_t>(wanted.size()))));
  // The turn of the next comes later: time to read them from disk.
  const auto next = wanted.subspan(std::min(count, wanted.size()));
  for (const AdapterKey& key : next.first(std::min(kMaxHints, next.size()))) {
    store_.Hint(key);
  }
  wanted = wanted.first(std::min(count, wanted.size()));
  std::vector<AdapterKey> missing;
  for (const AdapterKey& key : wanted) {
    if (!IsLeased(key)) missing.push_back(key);
  }
  // Those before the first that is missing stay leased: a load must not push
  // out what an older request, or the same one, waits with. Else a request of
  // several adapters may never see all of them at once.
  const auto first_missing = std::ranges::find_if(
      wanted, [&](const AdapterKey& key) { return !IsLeased(key); });
  const auto held = wanted.first(
      static_cast<size_t>(std::distance(wanted.begin(), first_missing)));
  // Of the others the most urgent one is leased last and so is the last to be
  // evicted.
  const auto others = wanted.subspan(held.size());
  for (auto it = others.rbegin(); it != others.rend(); ++it) {
    if (leases_.erase(*it) > 0) store_.TryLease(*it);
  }
  absl::erase_if(leases_, [&](const auto& lease) {
    return !Contains(in_use, lease.first) && !Contains(held, lease.first);
  });
  absl::erase_if(
      asked_, [&](const AdapterKey& key) { return !Contains(missing, key); });

  std::vector<std::pair<AdapterKey, absl::Status>> failed;
  for (const AdapterKey& key : missing) {
    absl::Status error;
    if (asked_.contains(key)) error = store_.LoadError(key);
    if (error.ok()) {
      store_.Prefetch(key);
      asked_.insert(key);
      error = store_.LoadError(key);
    }
    if (error.ok()) continue;
    asked_.erase(key);
    failed.emplace_back(key, std::move(error));
  }
  return failed;
}

void AdapterResidency::DropUnused(const AdapterKey& key,
                                  std::span<const AdapterKey> in_use) {
  if (!Contains(in_use, key)) leases_.erase(key);
}

void AdapterResidency::DropAll() { leases_.clear(); }

}  // namespace lorikeet
