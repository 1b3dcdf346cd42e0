// Registration: verify a copy of the files, store it, and let one transaction
// of the registry make the version visible.

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "adapters/adapter_metadata.h"
#include "adapters/adapter_norms.h"
#include "adapters/adapter_source.h"
#include "adapters/adapter_status.h"
#include "adapters/adapter_store_impl.h"
#include "adapters/int8_error.h"
#include "base/log.h"
#include "base/random.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {

absl::StatusOr<AdapterSource> AdapterStoreImpl::FindSource(
    const RegisterRequest& r) {
  if (r.upload_dir.empty()) {
    return AdapterSource::FromPath(
        fs_, r.path, {options_.roots, r.trusted_path, options_.limits});
  }
  if (!content_->IsUpload(r.upload_dir)) {
    return WithReason(absl::InvalidArgumentError("upload does not exist"),
                      "UPLOAD_NOT_FOUND");
  }
  return AdapterSource::FromUpload(fs_, r.upload_dir, options_.limits);
}

absl::Status AdapterStoreImpl::CheckRegister(const RegisterRequest& r) {
  if (catalogue_.aliases.count(NameKey(r.tenant, r.name)) > 0) {
    return NameTaken(r.tenant, r.name, "alias");
  }
  const auto it = catalogue_.entries.find(NameKey(r.tenant, r.name));
  using Mode = RegisterRequest::Mode;
  if (it == catalogue_.entries.end()) {
    if (r.mode == Mode::kUpdate) return AdapterNotFound(r.tenant, r.name);
    return CheckEtag(r.etag, 0);
  }
  if (r.mode == Mode::kCreate) return NameTaken(r.tenant, r.name, "adapter");
  RETURN_IF_ERROR(CheckEtag(r.etag, it->second.row.etag));
  return it->second.is_draining ? AdapterDraining(r.tenant, r.name)
                                : absl::OkStatus();
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::Register(
    const RegisterRequest& r) {
  absl::StatusOr<AdapterInfo> info = RegisterFrom(r);
  if (!r.upload_dir.empty()) content_->RemoveUpload(r.upload_dir);
  return info;
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::RegisterFrom(
    const RegisterRequest& r) {
  RETURN_IF_ERROR(CheckId("tenant id", r.tenant));
  RETURN_IF_ERROR(CheckId("adapter id", r.name));
  RETURN_IF_ERROR(CheckMetadata(r.display_name, r.labels));
  {
    MutexLock lock(&mu_);
    RETURN_IF_ERROR(CheckRegister(r));
  }
  ASSIGN_OR_RETURN(const AdapterSource source, FindSource(r));
  // What is verified is our own copy: the source may change meanwhile.
  ASSIGN_OR_RETURN(const std::unique_ptr<ContentStore::Staged> staged,
                   content_->Stage(source.config_path, source.model_path,
                                   source.golden_path, options_.limits));
  const std::string digest = staged->digest().ToHex();
  if (!r.expected_sha256.empty() &&
      !absl::EqualsIgnoreCase(r.expected_sha256, digest)) {
    return WithReason(absl::InvalidArgumentError(absl::StrCat(
                          "expected_sha256 is ", Quote(r.expected_sha256, 80),
                          ", the files have ", digest)),
                      "DIGEST_MISMATCH");
  }
  ASSIGN_OR_RETURN(
      const std::shared_ptr<const AdapterWeights> weights,
      ReadPeftAdapter(fs_, staged->dir(), base_.config, options_.limits,
                      options_.dtype, base_weights()));
  RETURN_IF_ERROR(CheckNorms(*weights));
  RETURN_IF_ERROR(RunGate(r, *staged, weights));
  std::vector<std::string> remarks;
  if (options_.dtype == DType::kI8) {
    remarks.push_back(DescribeInt8Error(MeasureInt8Error(*weights)));
  }
  if (r.validate_only) {
    MutexLock lock(&mu_);
    RETURN_IF_ERROR(CheckRegister(r));
    return MakeInfo(MakeEntry(r, *weights, remarks, staged->size_bytes()));
  }
  MutexLock commit(&commit_mu_);
  return Commit(r, *staged, *weights, remarks);
}

AdapterCatalogue::Entry AdapterStoreImpl::MakeEntry(
    const RegisterRequest& r, const AdapterWeights& weights,
    const std::vector<std::string>& remarks, uint64_t size_bytes) {
  const absl::Time now = Now();
  Entry entry;
  const auto it = catalogue_.entries.find(NameKey(r.tenant, r.name));
  if (it != catalogue_.entries.end()) {
    entry = it->second;
  } else {
    entry.row.tenant = r.tenant;
    entry.row.name = r.name;
    entry.row.uid = absl::StrFormat("%016x%016x", RandomSeed(), RandomSeed());
    entry.row.create_time = now;
  }
  if (!r.display_name.empty()) entry.row.display_name = r.display_name;
  if (!r.labels.empty()) entry.row.labels = r.labels;
  entry.row.source_path = r.path;
  entry.row.update_time = now;
  AdapterKey key;
  key.tenant = r.tenant;
  key.name = r.name;
  key.version =
      entry.versions.empty() ? 1 : entry.newest().info.key.version + 1;
  key.digest = weights.digest;
  auto version = std::make_shared<Version>();
  version->info = MakeVersionInfo(weights, std::move(key), base_.fingerprint,
                                  size_bytes, now);
  version->info.warnings.insert(version->info.warnings.end(), remarks.begin(),
                                remarks.end());
  entry.versions.push_back(std::move(version));
  return entry;
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::Commit(
    const RegisterRequest& r, const ContentStore::Staged& staged,
    const AdapterWeights& weights, const std::vector<std::string>& remarks) {
  Entry entry;
  std::vector<uint32_t> retired;
  std::optional<AdapterInfo> same;
  {
    MutexLock lock(&mu_);
    RETURN_IF_ERROR(CheckRegister(r));
    const auto it = catalogue_.entries.find(NameKey(r.tenant, r.name));
    if (it != catalogue_.entries.end()) {
      const AdapterVersionInfo& newest = it->second.newest().info;
      if (newest.key.digest == weights.digest && IsCompatible(newest)) {
        same = MakeInfo(it->second);
      }
    }
    if (!same.has_value()) {
      entry = MakeEntry(r, weights, remarks, staged.size_bytes());
      retired = BeginRetire(entry);
    }
  }
  if (same.has_value()) return Repair(*same, staged);
  RETURN_IF_ERROR(Write(r, staged, retired, &entry));
  std::vector<AdapterKey> gone;
  std::erase_if(entry.versions, [&](const auto& version) {
    const AdapterKey& key = version->info.key;
    const bool goes = std::ranges::find(retired, key.version) != retired.end();
    if (goes) gone.push_back(key);
    return goes;
  });
  const bool is_new = entry.versions.size() == 1 && gone.empty();
  AdapterInfo result = Publish(std::move(entry), is_new);
  FreeVersions(gone);
  Log(LogLevel::kInfo, "adapter registered",
      {{"adapter", result.newest.key.ToString()},
       {"digest", result.newest.key.digest.ToShortHex()}});
  return result;
}

absl::StatusOr<AdapterInfo> AdapterStoreImpl::Repair(
    const AdapterInfo& info, const ContentStore::Staged& staged) {
  // Nothing to do, unless the stored files were damaged.
  RETURN_IF_ERROR(content_->Commit(staged));
  if (info.state != AdapterState::kFailed) return info;
  // Forgets the failure.
  RETURN_IF_ERROR(loader_->Unload(info.newest.key, Tier::kDevice).status());
  return Get(info.tenant, info.name);
}

absl::Status AdapterStoreImpl::Write(const RegisterRequest& r,
                                     const ContentStore::Staged& staged,
                                     const std::vector<uint32_t>& retired,
                                     Entry* entry) {
  const AdapterVersionInfo& info = entry->newest().info;
  const bool is_new = entry->versions.size() == 1;
  AuditEntry audit =
      MakeAudit(r.actor, is_new ? "register" : "update", r.tenant, r.name);
  audit.new_target = absl::StrCat(r.name, "@", info.key.version);
  if (!is_new) {
    const Version& old = *entry->versions[entry->versions.size() - 2];
    audit.old_target = absl::StrCat(r.name, "@", old.info.key.version);
  }
  absl::Status status = content_->Commit(staged);
  // After a failed sync the log may hold the transaction all the same, and it
  // would be there after a crash: then its files must be there too. If not,
  // they are swept at the next start.
  bool may_be_registered = false;
  if (status.ok()) {
    absl::StatusOr<uint64_t> etag =
        is_new ? registry_->CreateAdapter(entry->row, info, audit)
               : registry_->AddVersion(entry->row, info, retired, audit);
    status = etag.status();
    may_be_registered = status.code() == absl::StatusCode::kInternal;
    if (etag.ok()) entry->row.etag = *etag;
  }
  if (status.ok()) return status;
  if (!may_be_registered) RemoveUnknownContent(info.key.digest);
  MutexLock lock(&mu_);
  const auto it = catalogue_.entries.find(NameKey(r.tenant, r.name));
  if (it != catalogue_.entries.end()) it->second.retiring.clear();
  return status;
}

AdapterInfo AdapterStoreImpl::Publish(Entry entry, bool is_new) {
  // Where an old version was in memory the new one will be wanted, too.
  const auto& all = entry.versions;
  const bool is_wanted =
      all.size() > 1 &&
      loader_->TierOf(all[all.size() - 2]->info.key) != Tier::kDisk;
  const std::shared_ptr<const Version> newest = all.back();
  MutexLock lock(&mu_);
  Entry& published =
      catalogue_.entries[NameKey(entry.row.tenant, entry.row.name)];
  // Draining and use may have changed since the copy was made.
  entry.is_draining = published.is_draining;
  entry.last_used = published.last_used;
  entry.drain_actor = published.drain_actor;
  entry.retiring.clear();
  published = std::move(entry);
  LogEvent(is_new ? AdapterEvent::Kind::kAdded : AdapterEvent::Kind::kModified,
           published);
  AdapterInfo result = MakeInfo(published);
  if (published.row.pinned) {
    // The pin follows the newest version.
    const auto& versions = published.versions;
    if (versions.size() > 1) {
      loader_->SetPinned(versions[versions.size() - 2]->info.key, false);
    }
    loader_->SetPinned(result.newest.key, true);
    loader_->Prefetch(result.newest.key, versions.back()->users);
  } else if (is_wanted) {
    loader_->Hint(result.newest.key, newest->users, newest->info.size_bytes);
  }
  return result;
}

}  // namespace lorikeet
