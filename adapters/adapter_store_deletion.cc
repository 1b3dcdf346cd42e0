// Deletion: no new requests, then no requests, then nothing.

#include "absl/strings/str_cat.h"
#include "adapters/adapter_status.h"
#include "adapters/adapter_store_impl.h"
#include "base/log.h"
#include "base/status.h"

namespace lorikeet {

absl::Status AdapterStoreImpl::BeginDelete(const std::string& tenant,
                                           const std::string& name,
                                           const Change& change) {
  MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(Entry* const entry, catalogue_.Find(tenant, name));
  RETURN_IF_ERROR(CheckEtag(change.etag, entry->row.etag));
  if (!entry->is_draining) {
    entry->is_draining = true;
    entry->drain_actor = change.actor;
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
  AuditEntry audit = MakeAudit(std::string(kCliActor), "delete", tenant, name);
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(Entry* const entry, catalogue_.Find(tenant, name));
    const int64_t users = entry->users();
    if (users > 0) return AdapterInUse(tenant, name, users);
    was_draining = entry->is_draining;
    if (!entry->drain_actor.empty()) audit.actor = entry->drain_actor;
    audit.old_target =
        absl::StrCat(name, "@", entry->newest().info.key.version);
    entry->is_draining = true;  // no new users from here on
    for (const auto& version : entry->versions) {
      keys.push_back(version->info.key);
    }
  }
  absl::Status status;
  for (const AdapterKey& key : keys) {
    status.Update(loader_->Unload(key, Tier::kDisk).status());
  }
  if (status.ok()) status = registry_->DeleteAdapter(tenant, name, audit);
  if (!status.ok()) {
    if (!was_draining) CancelDelete(tenant, name);
    return status;
  }
  {
    MutexLock lock(&mu_);
    const auto it = catalogue_.entries.find(NameKey(tenant, name));
    LogEvent(AdapterEvent::Kind::kDeleted, it->second);
    catalogue_.entries.erase(it);
    catalogue_.RemoveFromAliases(tenant, name);
    for (const AdapterKey& key : keys) popularity_.Forget(key);
  }
  for (const AdapterKey& key : keys) {
    loader_->SetPinned(key, false);
    RemoveUnknownContent(key.digest);
  }
  HintPopular();
  return absl::OkStatus();
}

// ---- versions beyond the retention ------------------------------------------

std::vector<uint32_t> AdapterStoreImpl::BeginRetire(const Entry& entry) {
  std::vector<uint32_t> retired;
  if (options_.version_retention <= 0) return retired;
  const size_t kept = static_cast<size_t>(options_.version_retention);
  const auto it =
      catalogue_.entries.find(NameKey(entry.row.tenant, entry.row.name));
  for (size_t i = 0; i + kept < entry.versions.size(); ++i) {
    const Version& version = *entry.versions[i];
    if (version.users->load() > 0 || catalogue_.IsAliased(version.info.key)) {
      continue;  // looked at again with the next version
    }
    it->second.retiring.insert(version.info.key.version);
    retired.push_back(version.info.key.version);
  }
  return retired;
}

void AdapterStoreImpl::FreeVersions(const std::vector<AdapterKey>& keys) {
  for (const AdapterKey& key : keys) {
    loader_->SetPinned(key, false);
    const absl::Status status = loader_->Unload(key, Tier::kDisk).status();
    if (!status.ok()) {
      Log(LogLevel::kWarning, "memory of a version waits for its eviction",
          {{"adapter", key.ToString()},
           {"error", std::string(status.message())}});
    }
    RemoveUnknownContent(key.digest);
  }
}

void AdapterStoreImpl::RemoveUnknownContent(const Digest& digest) {
  {
    MutexLock lock(&mu_);
    if (catalogue_.HasDigest(digest)) return;
  }
  const absl::Status status = content_->Remove(digest);
  if (status.ok()) return;
  Log(LogLevel::kWarning, "adapter files stay until the next start",
      {{"digest", digest.ToShortHex()},
       {"error", std::string(status.message())}});
}

}  // namespace lorikeet
