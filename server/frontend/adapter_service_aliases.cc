// The use cases over aliases, and the audit trail.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"
#include "server/frontend/adapter_error.h"
#include "server/frontend/adapter_service.h"
#include "server/frontend/error.h"

namespace lorikeet {

absl::StatusOr<AdapterRef> AdapterService::ParseTarget(
    const std::string& tenant, const std::string& text,
    const std::string& field) const {
  absl::StatusOr<AdapterRef> ref = AdapterRef::Parse(text);
  if (!ref.ok()) {
    return WithField(WithDefaultReason(ref.status(), "INVALID_NAME"), field);
  }
  if (ref->tenant != tenant) {
    return FieldError(field,
                      absl::StrCat(Quote(text), " is of another tenant"));
  }
  return ref;
}

absl::StatusOr<AliasView> AdapterService::ToView(
    const std::string& tenant, const std::string& alias,
    absl::StatusOr<AliasInfo> info) const {
  if (info.ok()) return AliasView{*info, monitor_.CountsOf(*info)};
  // What is missing may be a target.
  const bool is_adapter = ReasonOf(info.status()) == "ADAPTER_NOT_FOUND";
  const absl::Status status =
      About(info.status(), is_adapter ? "adapter" : "alias", tenant, alias);
  return is_adapter ? WithField(status, "version") : status;
}

absl::StatusOr<AliasView> AdapterService::SetAlias(const AliasInput& input) {
  RETURN_IF_ERROR(CheckName(input.tenant, input.alias, "alias.name"));
  if (input.alias == model_.id) {
    return About(absl::AlreadyExistsError(absl::StrCat(
                     "name ", Quote(input.alias), " is the base model's")),
                 "alias", input.tenant, input.alias);
  }
  AdapterStore::AliasRequest request;
  request.tenant = input.tenant;
  request.alias = input.alias;
  request.rule = input.rule;
  request.change = input.change;
  const bool is_split = input.targets.size() > 1;
  for (size_t i = 0; i < input.targets.size(); ++i) {
    const AliasInput::Target& target = input.targets[i];
    ASSIGN_OR_RETURN(AdapterRef ref, ParseTarget(input.tenant, target.version,
                                                 absl::StrCat("alias.targets[",
                                                              i, "].version")));
    request.targets.push_back(
        {std::move(ref), is_split ? target.weight : uint32_t{1}});
  }
  if (!input.shadow.empty()) {
    ASSIGN_OR_RETURN(AdapterRef ref, ParseTarget(input.tenant, input.shadow,
                                                 "alias.shadow.version"));
    request.shadow = {std::move(ref), input.shadow_share};
  }
  absl::StatusOr<AliasInfo> info = store_.PutAlias(request);
  // What is missing is a target, not the alias.
  if (absl::IsNotFound(info.status())) {
    return WithField(About(info.status(), "adapter", input.tenant,
                           input.targets.front().version),
                     "alias.targets");
  }
  return ToView(input.tenant, input.alias, std::move(info));
}

absl::StatusOr<AliasView> AdapterService::PromoteAlias(
    const std::string& tenant, const std::string& alias,
    const std::string& target, const Change& change) {
  RETURN_IF_ERROR(CheckName(tenant, alias, "name"));
  std::optional<AdapterRef> ref;
  if (!target.empty()) {
    ASSIGN_OR_RETURN(ref, ParseTarget(tenant, target, "version"));
  }
  return ToView(tenant, alias, store_.PromoteAlias(tenant, alias, ref, change));
}

absl::StatusOr<AliasView> AdapterService::RollBackAlias(
    const std::string& tenant, const std::string& alias, const Change& change) {
  RETURN_IF_ERROR(CheckName(tenant, alias, "name"));
  return ToView(tenant, alias, store_.RollBackAlias(tenant, alias, change));
}

absl::StatusOr<AliasView> AdapterService::GetAlias(const std::string& tenant,
                                                   const std::string& alias) {
  RETURN_IF_ERROR(CheckName(tenant, alias, "name"));
  return ToView(tenant, alias, store_.GetAlias(tenant, alias));
}

absl::StatusOr<std::vector<AliasView>> AdapterService::ListAliases(
    const std::string& tenant) {
  RETURN_IF_ERROR(CheckTenant(tenant));
  std::vector<AliasView> views;
  for (const AliasInfo& info : store_.ListAliases(tenant)) {
    views.push_back({info, monitor_.CountsOf(info)});
  }
  std::sort(views.begin(), views.end(),
            [](const AliasView& a, const AliasView& b) {
              return a.info.name < b.info.name;
            });
  return views;
}

absl::Status AdapterService::DeleteAlias(const std::string& tenant,
                                         const std::string& alias,
                                         const Change& change) {
  RETURN_IF_ERROR(CheckName(tenant, alias, "name"));
  return About(store_.DeleteAlias(tenant, alias, change), "alias", tenant,
               alias);
}

absl::StatusOr<AuditPage> AdapterService::ReadAudit(const AuditQuery& query) {
  RETURN_IF_ERROR(CheckTenant(query.tenant));
  if (!query.name.empty()) {
    RETURN_IF_ERROR(CheckName(query.tenant, query.name, "resource"));
  }
  AuditQuery one_more = query;
  ++one_more.limit;
  AuditPage page;
  ASSIGN_OR_RETURN(page.entries, store_.ReadAudit(one_more));
  page.has_more = page.entries.size() > static_cast<size_t>(query.limit);
  if (page.has_more) page.entries.pop_back();
  return page;
}

}  // namespace lorikeet
