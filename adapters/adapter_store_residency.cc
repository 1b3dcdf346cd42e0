// Residency: where weights are, on request of an engine or an operator.

#include "absl/strings/str_cat.h"
#include "adapters/adapter_status.h"
#include "adapters/adapter_store_impl.h"
#include "base/reason.h"
#include "base/status.h"

namespace lorikeet {
namespace {

// Most versions that are brought in at once because they are popular.
constexpr size_t kPopularHints = 8;

}  // namespace

void AdapterStoreImpl::Prefetch(const AdapterKey& key) {
  std::shared_ptr<const Version> version;
  {
    MutexLock lock(&mu_);
    version = catalogue_.FindKey(key);
    const auto trial = trials_.find(key);
    if (trial != trials_.end()) version = trial->second.version;
  }
  if (version != nullptr) loader_->Prefetch(key, version->users);
}

void AdapterStoreImpl::Hint(const AdapterKey& key) {
  std::shared_ptr<const Version> version;
  {
    MutexLock lock(&mu_);
    version = catalogue_.FindKey(key);
  }
  if (version == nullptr || !IsCompatible(version->info)) return;
  loader_->Hint(key, version->users, version->info.size_bytes);
}

void AdapterStoreImpl::HintPopular() {
  std::vector<AdapterKey> popular;
  {
    MutexLock lock(&mu_);
    popular = popularity_.Top(kPopularHints, clock_.Now());
  }
  for (const AdapterKey& key : popular) Hint(key);
}

absl::Status AdapterStoreImpl::LoadTo(const std::string& tenant,
                                      const std::string& name, Tier tier,
                                      std::optional<bool> pinned,
                                      absl::Duration timeout) {
  std::shared_ptr<const Version> version;
  bool was_pinned = false;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Entry* entry, catalogue_.Find(tenant, name));
    if (entry->is_draining) return AdapterDraining(tenant, name);
    version = entry->versions.back();
    was_pinned = entry->row.pinned;
  }
  const AdapterKey& key = version->info.key;
  RETURN_IF_ERROR(CheckCompatible(version->info));
  // Held while it loads, and pinned before, so that nothing pushes it out
  // between the load and the pin.
  const Hold hold(version);
  if (pinned.value_or(false)) loader_->SetPinned(key, true);
  const absl::Status status = loader_->Load(key, version->users, tier, timeout);
  if (!status.ok()) {
    if (!was_pinned) loader_->SetPinned(key, false);
    return status;
  }
  if (!pinned.has_value() || *pinned == was_pinned) return absl::OkStatus();
  return SetPinned(tenant, name, *pinned).status();
}

absl::StatusOr<int64_t> AdapterStoreImpl::UnloadTo(const std::string& tenant,
                                                   const std::string& name,
                                                   Tier tier) {
  if (tier == Tier::kDevice) return 0;
  std::vector<AdapterKey> keys;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Entry* entry, catalogue_.Find(tenant, name));
    if (entry->row.pinned) {
      return WithReason(
          absl::FailedPreconditionError(absl::StrCat(
              "adapter ", DescribeName(tenant, name), " is pinned")),
          "ADAPTER_PINNED");
    }
    const int64_t users = entry->users();
    if (users > 0) return AdapterInUse(tenant, name, users);
    for (const auto& version : entry->versions) {
      keys.push_back(version->info.key);
    }
  }
  int64_t freed = 0;
  for (const AdapterKey& key : keys) {
    ASSIGN_OR_RETURN(const int64_t bytes, loader_->Unload(key, tier));
    freed += bytes;
  }
  if (freed > 0) {
    OnMoved(keys);
    // Whoever was unloaded is meant to stay away.
    {
      MutexLock lock(&mu_);
      for (const AdapterKey& key : keys) popularity_.Forget(key);
    }
    HintPopular();
  }
  return freed;
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::SetPinned(
    const std::string& tenant, const std::string& name, bool pinned) {
  ASSIGN_OR_RETURN(AdapterInfo info, ChangeRow(tenant, name, std::nullopt,
                                               [&](Registry::Adapter* row) {
                                                 row->pinned = pinned;
                                               }));
  loader_->SetPinned(info.newest.key, pinned);
  return info;
}

}  // namespace lorikeet
