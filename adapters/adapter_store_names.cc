// Names: aliases, and what a name means right now. A change of an alias is made
// as a whole: from the alias that is there a new one is computed, written in
// one transaction, and then shown.

#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/adapter_status.h"
#include "adapters/adapter_store_impl.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

absl::Status InvalidName(absl::string_view message) {
  return WithReason(absl::InvalidArgumentError(message), "INVALID_NAME");
}

}  // namespace

absl::StatusOr<AliasInfo> AdapterStoreImpl::MakeAliasInfo(const Alias& alias) {
  AdapterRef ref;
  ref.tenant = alias.tenant;
  ref.name = alias.stable().adapter;
  ref.version = alias.stable().version;
  ASSIGN_OR_RETURN(const Entry* entry, catalogue_.Find(ref.tenant, ref.name));
  ASSIGN_OR_RETURN(const std::shared_ptr<const Version> version,
                   catalogue_.FindVersion(*entry, ref));
  return AliasInfo{alias, version->info.key};
}

absl::StatusOr<const Alias*> AdapterStoreImpl::FindAlias(
    const std::string& tenant, const std::string& alias) {
  const auto it = catalogue_.aliases.find(NameKey(tenant, alias));
  if (it == catalogue_.aliases.end()) return AliasNotFound(tenant, alias);
  return &it->second;
}

absl::StatusOr<AliasTarget> AdapterStoreImpl::FindTarget(
    const AdapterRef& ref) {
  if (catalogue_.aliases.count(NameKey(ref.tenant, ref.name)) > 0) {
    return InvalidName(absl::StrCat(
        "an alias must point to an adapter, not to alias ", Quote(ref.name)));
  }
  ASSIGN_OR_RETURN(const Entry* entry, catalogue_.Find(ref.tenant, ref.name));
  if (entry->is_draining) return AdapterDraining(ref.tenant, ref.name);
  ASSIGN_OR_RETURN(const std::shared_ptr<const Version> version,
                   catalogue_.FindVersion(*entry, ref));
  return AliasTarget{ref.name, version->info.key.version, 1};
}

absl::StatusOr<Alias> AdapterStoreImpl::MakeAlias(const AliasRequest& r) {
  Alias alias;
  alias.tenant = r.tenant;
  alias.name = r.alias;
  alias.rule = r.rule;
  for (const AliasRequest::Target& target : r.targets) {
    ASSIGN_OR_RETURN(AliasTarget found, FindTarget(target.ref));
    found.weight = target.weight;
    alias.targets.push_back(std::move(found));
  }
  // What the weight of an only target is does not matter.
  if (alias.targets.size() == 1 && alias.targets[0].weight > 0) {
    alias.targets[0].weight = 1;
  }
  if (r.shadow.has_value()) {
    ASSIGN_OR_RETURN(const AliasTarget found, FindTarget(r.shadow->ref));
    alias.shadow = AliasShadow{found.adapter, found.version, r.shadow->share};
  }
  RETURN_IF_ERROR(CheckAlias(alias));
  return alias;
}

absl::StatusOr<AliasInfo> AdapterStoreImpl::PutAlias(const AliasRequest& r) {
  RETURN_IF_ERROR(CheckId("tenant id", r.tenant));
  RETURN_IF_ERROR(CheckId("alias", r.alias));
  const auto check_tenant = [&](const AdapterRef& ref) {
    if (ref.tenant == r.tenant) return absl::OkStatus();
    return InvalidName(absl::StrCat("alias ", DescribeName(r.tenant, r.alias),
                                    " cannot point to an adapter of tenant ",
                                    Quote(ref.tenant)));
  };
  for (const AliasRequest::Target& target : r.targets) {
    RETURN_IF_ERROR(check_tenant(target.ref));
  }
  if (r.shadow.has_value()) RETURN_IF_ERROR(check_tenant(r.shadow->ref));

  MutexLock commit(&commit_mu_);
  Alias alias;
  std::optional<Alias> old;
  {
    MutexLock lock(&mu_);
    if (catalogue_.entries.count(NameKey(r.tenant, r.alias)) > 0) {
      return NameTaken(r.tenant, r.alias, "adapter");
    }
    const auto it = catalogue_.aliases.find(NameKey(r.tenant, r.alias));
    if (it != catalogue_.aliases.end()) old = it->second;
    RETURN_IF_ERROR(CheckEtag(r.change.etag, old.has_value() ? old->etag : 0));
    ASSIGN_OR_RETURN(alias, MakeAlias(r));
    if (old.has_value()) {
      alias.previous = old->previous;
      if (!alias.stable().IsSameVersion(old->stable())) {
        alias.previous = old->stable();
      }
      if (alias.RoutesLike(*old)) return MakeAliasInfo(*old);
    }
  }
  return WriteAlias(old, std::move(alias), "alias.set", r.change);
}

absl::StatusOr<AliasInfo> AdapterStoreImpl::WriteAlias(
    const std::optional<Alias>& old, Alias alias, const std::string& action,
    const Change& change) {
  AuditEntry audit = MakeAudit(change.actor, action, alias.tenant, alias.name);
  audit.new_target = alias.DescribeTargets();
  if (old.has_value()) audit.old_target = old->DescribeTargets();
  audit.reason = change.reason;
  ASSIGN_OR_RETURN(alias.etag, registry_->PutAlias(alias, audit));
  MutexLock lock(&mu_);
  Alias& shown = catalogue_.aliases[NameKey(alias.tenant, alias.name)];
  shown = std::move(alias);
  return MakeAliasInfo(shown);
}

absl::StatusOr<AliasInfo> AdapterStoreImpl::PromoteAlias(
    const std::string& tenant, const std::string& alias,
    const std::optional<AdapterRef>& target, const Change& change) {
  MutexLock commit(&commit_mu_);
  Alias old, promoted;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Alias* found, FindAlias(tenant, alias));
    old = *found;
    RETURN_IF_ERROR(CheckEtag(change.etag, old.etag));
    absl::StatusOr<AliasTarget> winner =
        target.has_value() ? FindTarget(*target) : CandidateOf(old);
    RETURN_IF_ERROR(winner.status());
    promoted = Promoted(old, *winner);
    if (promoted.RoutesLike(old)) return MakeAliasInfo(old);
  }
  return WriteAlias(old, std::move(promoted), "alias.promote", change);
}

absl::StatusOr<AliasInfo> AdapterStoreImpl::RollBackAlias(
    const std::string& tenant, const std::string& alias, const Change& change) {
  MutexLock commit(&commit_mu_);
  Alias old, back;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Alias* found, FindAlias(tenant, alias));
    old = *found;
    RETURN_IF_ERROR(CheckEtag(change.etag, old.etag));
    ASSIGN_OR_RETURN(back, RolledBack(old));
  }
  return WriteAlias(old, std::move(back), "alias.rollback", change);
}

absl::StatusOr<AliasInfo> AdapterStoreImpl::GetAlias(const std::string& tenant,
                                                     const std::string& alias) {
  MutexLock lock(&mu_);
  ASSIGN_OR_RETURN(const Alias* found, FindAlias(tenant, alias));
  return MakeAliasInfo(*found);
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
                                           const Change& change) {
  MutexLock commit(&commit_mu_);
  AuditEntry audit = MakeAudit(change.actor, "alias.delete", tenant, alias);
  audit.reason = change.reason;
  {
    MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const Alias* found, FindAlias(tenant, alias));
    RETURN_IF_ERROR(CheckEtag(change.etag, found->etag));
    audit.old_target = found->DescribeTargets();
  }
  RETURN_IF_ERROR(registry_->DeleteAlias(tenant, alias, audit));
  MutexLock lock(&mu_);
  catalogue_.aliases.erase(NameKey(tenant, alias));
  return absl::OkStatus();
}

// ---- use --------------------------------------------------------------------

VersionRef AdapterStoreImpl::HoldVersion(
    Entry* entry, std::shared_ptr<const Version> version) {
  entry->last_used = clock_.WallNow();
  popularity_.Count(version->info.key, clock_.Now());
  auto hold = std::make_shared<const Hold>(std::move(version));
  return VersionRef(hold, &hold->version->info);
}

absl::StatusOr<VersionRef> AdapterStoreImpl::HoldTarget(
    const std::string& tenant, const std::string& adapter, uint32_t version) {
  AdapterRef ref;
  ref.tenant = tenant;
  ref.name = adapter;
  ref.version = version;
  ASSIGN_OR_RETURN(Entry* const entry, catalogue_.Find(tenant, adapter));
  if (entry->is_draining) return AdapterNotFound(tenant, adapter);
  ASSIGN_OR_RETURN(std::shared_ptr<const Version> found,
                   catalogue_.FindVersion(*entry, ref));
  RETURN_IF_ERROR(CheckCompatible(found->info));
  return HoldVersion(entry, std::move(found));
}

absl::StatusOr<Route> AdapterStoreImpl::FindRoute(const AdapterRef& ref,
                                                  absl::string_view key) {
  MutexLock lock(&mu_);
  Route route;
  const auto it = catalogue_.aliases.find(NameKey(ref.tenant, ref.name));
  if (it == catalogue_.aliases.end()) {
    ASSIGN_OR_RETURN(Entry* const entry, catalogue_.Find(ref.tenant, ref.name));
    if (entry->is_draining) return AdapterNotFound(ref.tenant, ref.name);
    ASSIGN_OR_RETURN(std::shared_ptr<const Version> version,
                     catalogue_.FindVersion(*entry, ref));
    RETURN_IF_ERROR(CheckCompatible(version->info));
    route.version = HoldVersion(entry, std::move(version));
    route.merge_policy = entry->row.merge_policy;
    return route;
  }
  const Alias& alias = it->second;
  if (ref.version.has_value() || ref.digest.has_value()) {
    return InvalidName(absl::StrCat(
        "alias ", DescribeName(ref.tenant, ref.name),
        " points to versions of its own and cannot be given another"));
  }
  const size_t index = ChooseTarget(alias, key);
  AliasTarget target = alias.targets[index];
#ifdef LORIKEET_SEED_ALIAS_READ_TWICE  // right_adapter_test
  // The adapter of one look with the version of another.
  mu_.Unlock();
  lorikeet::SleepFor(absl::Milliseconds(1));
  mu_.Lock();
  target.version = it->second.targets[index].version;
#endif
  ASSIGN_OR_RETURN(route.version,
                   HoldTarget(alias.tenant, target.adapter, target.version));
  ASSIGN_OR_RETURN(const Entry* const entry,
                   catalogue_.Find(alias.tenant, target.adapter));
  route.merge_policy = entry->row.merge_policy;
  route.alias = alias.name;
  route.alias_etag = alias.etag;
  route.is_watched = alias.targets.size() > 1 || alias.shadow.has_value() ||
                     alias.rule.has_value();
  const bool is_candidate =
      index > 0 || (alias.targets.size() == 1 && alias.previous.has_value());
  if (is_candidate) route.rule = alias.rule;
  if (IsShadowed(alias, key)) {
    absl::StatusOr<VersionRef> shadow =
        HoldTarget(alias.tenant, alias.shadow->adapter, alias.shadow->version);
    if (shadow.ok()) route.shadow = *std::move(shadow);
  }
  return route;
}

}  // namespace lorikeet
