// Deletion: no new requests, then no requests, then nothing.

#include "adapters/adapter_status.h"
#include "adapters/adapter_store_impl.h"
#include "base/status.h"

namespace lorikeet {

absl::Status AdapterStoreImpl::BeginDelete(const std::string& tenant,
                                           const std::string& name,
                                           std::optional<uint64_t> etag) {
  MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(Entry* const entry, catalogue_.Find(tenant, name));
  RETURN_IF_ERROR(CheckEtag(etag, entry->row.etag));
  if (!entry->is_draining) {
    entry->is_draining = true;
    LogEvent(AdapterEvent::Kind::kModified, *entry);
  }
  return absl::OkStatus();
}

void AdapterStoreImpl::CancelDelete(const std::string& tenant,
                                    const std::string& name) {
  MutexLock lock(&mu_);
  const absl::StatusOr<Entry*> entry = catalogue_.Find(tenant, name);
  if (!entry.ok() || !(*entry)->is_draining) return;
  (*entry)->is_draining = false;
  LogEvent(AdapterEvent::Kind::kModified, **entry);
}

absl::Status AdapterStoreImpl::FinishDelete(const std::string& tenant,
                                            const std::string& name) {
  MutexLock commit(&commit_mu_);
  std::vector<AdapterKey> keys;
  bool was_draining = false;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(Entry* const entry, catalogue_.Find(tenant, name));
    const int64_t users = entry->users();
    if (users > 0) return AdapterInUse(tenant, name, users);
    was_draining = entry->is_draining;
    entry->is_draining = true;  // no new users from here on
    for (const auto& version : entry->versions) {
      keys.push_back(version->info.key);
    }
  }
  absl::Status status;
  for (const AdapterKey& key : keys) {
    status.Update(loader_->Unload(key, Tier::kDisk).status());
  }
  if (status.ok()) status = registry_->DeleteAdapter(tenant, name);
  if (!status.ok()) {
    if (!was_draining) CancelDelete(tenant, name);
    return status;
  }
  {
    MutexLock lock(&mu_);
    const auto it = catalogue_.entries.find(NameKey(tenant, name));
    LogEvent(AdapterEvent::Kind::kDeleted, it->second);
    catalogue_.entries.erase(it);
    for (auto alias = catalogue_.aliases.begin();
         alias != catalogue_.aliases.end();) {
      const bool goes =
          alias->second.tenant == tenant && alias->second.target == name;
      alias = goes ? catalogue_.aliases.erase(alias) : std::next(alias);
    }
  }
  for (const AdapterKey& key : keys) {
    loader_->SetPinned(key, false);
    RemoveUnknownContent(key.digest);
  }
  return absl::OkStatus();
}

}  // namespace lorikeet
