// Names: aliases, and what a name means right now.

#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/adapter_status.h"
#include "adapters/adapter_store_impl.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {

absl::StatusOr<AliasInfo> AdapterStoreImpl::MakeAliasInfo(
    const Registry::Alias& alias) {
  AdapterRef ref;
  ref.tenant = alias.tenant;
  ref.name = alias.target;
  ref.version = alias.version;
  ASSIGN_OR_RETURN(const Entry* entry, catalogue_.Find(ref.tenant, ref.name));
  ASSIGN_OR_RETURN(const std::shared_ptr<const Version> version,
                   catalogue_.FindVersion(*entry, ref));
  return AliasInfo{alias.tenant, alias.name, version->info.key, alias.etag};
}

absl::StatusOr<AliasInfo> AdapterStoreImpl::SetAlias(
    const std::string& tenant, const std::string& alias,
    const AdapterRef& target, std::optional<uint64_t> etag) {
  RETURN_IF_ERROR(CheckId("tenant id", tenant));
  RETURN_IF_ERROR(CheckId("alias", alias));
  if (target.tenant != tenant) {
    return WithReason(
        absl::InvalidArgumentError(absl::StrCat(
            "alias ", DescribeName(tenant, alias),
            " cannot point to an adapter of tenant ", Quote(target.tenant))),
        "INVALID_NAME");
  }
  MutexLock commit(&commit_mu_);
  Registry::Alias row{tenant, alias, target.name, 0, 0};
  {
    MutexLock lock(&mu_);
    if (catalogue_.entries.count(NameKey(tenant, alias)) > 0) {
      return NameTaken(tenant, alias, "adapter");
    }
    if (catalogue_.aliases.count(NameKey(tenant, target.name)) > 0) {
      return WithReason(
          absl::InvalidArgumentError(absl::StrCat(
              "alias ", DescribeName(tenant, alias),
              " must point to an adapter, not to alias ", Quote(target.name))),
          "INVALID_NAME");
    }
    const auto it = catalogue_.aliases.find(NameKey(tenant, alias));
    RETURN_IF_ERROR(
        CheckEtag(etag, it == catalogue_.aliases.end() ? 0 : it->second.etag));
    ASSIGN_OR_RETURN(const Entry* entry, catalogue_.Find(tenant, target.name));
    if (entry->is_draining) return AdapterDraining(tenant, target.name);
    ASSIGN_OR_RETURN(const std::shared_ptr<const Version> version,
                     catalogue_.FindVersion(*entry, target));
    row.version = version->info.key.version;
    if (it != catalogue_.aliases.end() && it->second.target == row.target &&
        it->second.version == row.version) {
      return MakeAliasInfo(it->second);
    }
  }
  ASSIGN_OR_RETURN(row.etag, registry_->PutAlias(row));
  MutexLock lock(&mu_);
  catalogue_.aliases[NameKey(tenant, alias)] = row;
  return MakeAliasInfo(row);
}

absl::StatusOr<AliasInfo> AdapterStoreImpl::GetAlias(const std::string& tenant,
                                                     const std::string& alias) {
  MutexLock lock(&mu_);
  const auto it = catalogue_.aliases.find(NameKey(tenant, alias));
  if (it == catalogue_.aliases.end()) return AliasNotFound(tenant, alias);
  return MakeAliasInfo(it->second);
}

std::vector<AliasInfo> AdapterStoreImpl::ListAliases(
    const std::string& tenant) {
  MutexLock lock(&mu_);
  std::vector<AliasInfo> result;
  for (auto it = catalogue_.aliases.lower_bound(NameKey(tenant, ""));
       it != catalogue_.aliases.end() && it->first.first == tenant; ++it) {
    absl::StatusOr<AliasInfo> info = MakeAliasInfo(it->second);
    if (info.ok()) result.push_back(*std::move(info));
  }
  return result;
}

absl::Status AdapterStoreImpl::DeleteAlias(const std::string& tenant,
                                           const std::string& alias,
                                           std::optional<uint64_t> etag) {
  MutexLock commit(&commit_mu_);
  {
    MutexLock lock(&mu_);
    const auto it = catalogue_.aliases.find(NameKey(tenant, alias));
    if (it == catalogue_.aliases.end()) return AliasNotFound(tenant, alias);
    RETURN_IF_ERROR(CheckEtag(etag, it->second.etag));
  }
  RETURN_IF_ERROR(registry_->DeleteAlias(tenant, alias));
  MutexLock lock(&mu_);
  catalogue_.aliases.erase(NameKey(tenant, alias));
  return absl::OkStatus();
}

absl::StatusOr<VersionRef> AdapterStoreImpl::Resolve(const AdapterRef& ref) {
  MutexLock lock(&mu_);
  AdapterRef target = ref;
  const auto alias = catalogue_.aliases.find(NameKey(ref.tenant, ref.name));
  if (alias != catalogue_.aliases.end()) {
    if (ref.version.has_value() || ref.digest.has_value()) {
      return WithReason(
          absl::InvalidArgumentError(absl::StrCat(
              "alias ", DescribeName(ref.tenant, ref.name),
              " points to one version and cannot be given another")),
          "INVALID_NAME");
    }
    target.name = alias->second.target;
    target.version = alias->second.version;
  }
  ASSIGN_OR_RETURN(Entry* const entry,
                   catalogue_.Find(target.tenant, target.name));
  if (entry->is_draining) return AdapterNotFound(ref.tenant, ref.name);
  ASSIGN_OR_RETURN(std::shared_ptr<const Version> version,
                   catalogue_.FindVersion(*entry, target));
  RETURN_IF_ERROR(CheckCompatible(version->info));
  entry->last_used = clock_.WallNow();
  auto hold = std::make_shared<const Hold>(std::move(version));
  return VersionRef(hold, &hold->version->info);
}

}  // namespace lorikeet
