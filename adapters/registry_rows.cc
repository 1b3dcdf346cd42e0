#include "adapters/registry_rows.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/adapter_status.h"
#include "base/json.h"
#include "base/reason.h"
#include "base/status.h"
#include "base/text.h"

namespace lorikeet {
namespace {

Json StringsToJson(const std::vector<std::string>& list) {
  Json json = Json::Array();
  for (const std::string& s : list) json.Append(s);
  return json;
}

std::vector<std::string> StringsFromJson(const Json& json) {
  std::vector<std::string> list;
  if (!json.is_array()) return list;
  for (const Json& item : json.items()) {
    if (item.is_string()) list.push_back(item.AsString());
  }
  return list;
}

Json LabelsToJson(
    const std::vector<std::pair<std::string, std::string>>& labels) {
  Json json = Json::Array();
  for (const auto& [key, value] : labels) {
    Json pair = Json::Array();
    pair.Append(key);
    pair.Append(value);
    json.Append(std::move(pair));
  }
  return json;
}

std::vector<std::pair<std::string, std::string>> LabelsFromJson(
    const Json& json) {
  std::vector<std::pair<std::string, std::string>> labels;
  if (!json.is_array()) return labels;
  for (const Json& item : json.items()) {
    const std::vector<std::string> pair = StringsFromJson(item);
    if (pair.size() == 2) labels.emplace_back(pair[0], pair[1]);
  }
  return labels;
}

Json ModulesToJson(const std::vector<AdapterVersionInfo::Module>& modules) {
  Json json = Json::Array();
  for (const auto& module : modules) {
    Json row = Json::Array();
    row.Append(module.name);
    row.Append(module.rank);
    row.Append(module.scaling);
    json.Append(std::move(row));
  }
  return json;
}

std::vector<AdapterVersionInfo::Module> ModulesFromJson(const Json& json) {
  std::vector<AdapterVersionInfo::Module> modules;
  if (!json.is_array()) return modules;
  for (const Json& item : json.items()) {
    if (!item.is_array() || item.items().size() != 3) continue;
    const std::vector<Json>& row = item.items();
    if (!row[0].is_string() || !row[1].is_int() || !row[2].is_number())
      continue;
    modules.push_back({row[0].AsString(), row[1].AsInt(), row[2].AsDouble()});
  }
  return modules;
}

Json FeaturesToJson(const AdapterFeatures& features) {
  Json json = Json::Object();
  if (features.is_plain()) return json;
  json.Set("keys", StringsToJson(features.keys));
  Json tokens = Json::Array();
  for (const Token t : features.invocation_tokens) tokens.Append(t);
  json.Set("invocation_tokens", std::move(tokens));
  return json;
}

AdapterFeatures FeaturesFromJson(const Json& json) {
  AdapterFeatures features;
  if (!json.is_object()) return features;
  if (const Json* keys = json.Find("keys")) {
    features.keys = StringsFromJson(*keys);
  }
  const Json* tokens = json.Find("invocation_tokens");
  if (tokens == nullptr || !tokens->is_array()) return features;
  for (const Json& token : tokens->items()) {
    if (!token.is_int()) continue;
    features.invocation_tokens.push_back(static_cast<Token>(token.AsInt()));
  }
  return features;
}

const char* NameOrEmpty(std::optional<MergePolicy> policy) {
  return policy.has_value() ? Name(*policy) : "";
}

absl::Status InsertTarget(Database& db, const Alias& alias, const char* role,
                          size_t position, const AliasTarget& target,
                          double share = 0) {
  Statement insert(db,
                   "INSERT INTO alias_targets VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  return insert.Bind(alias.tenant)
      .Bind(alias.name)
      .Bind(role)
      .Bind(static_cast<uint64_t>(position))
      .Bind(target.adapter)
      .Bind(target.version)
      .Bind(target.weight)
      .Bind(share)
      .Run();
}

absl::Status InsertAliasRow(Database& db, const Alias& alias) {
  Statement insert(db, "INSERT INTO aliases VALUES (?, ?, ?, ?, ?, ?, ?)");
  insert.Bind(alias.tenant).Bind(alias.name).Bind(alias.etag);
  if (!alias.rule.has_value()) {
    return insert.BindNull().BindNull().BindNull().BindNull().Run();
  }
  const RollbackRule& rule = *alias.rule;
  insert.Bind(rule.max_error_rate);
  if (rule.max_latency == absl::InfiniteDuration()) {
    insert.BindNull();
  } else {
    insert.Bind(absl::ToInt64Microseconds(rule.max_latency));
  }
  return insert.Bind(absl::ToInt64Microseconds(rule.window))
      .Bind(rule.min_requests)
      .Run();
}

std::optional<RollbackRule> ReadRule(Statement& row) {
  if (row.IsNull()) return std::nullopt;
  RollbackRule rule;
  rule.max_error_rate = row.Double();
  if (row.IsNull()) {
    row.Skip();
  } else {
    rule.max_latency = absl::Microseconds(row.Int());
  }
  rule.window = absl::Microseconds(row.Int());
  rule.min_requests = row.Int();
  return rule;
}

}  // namespace

absl::Status InsertAdapter(Database& db, const Registry::Adapter& a) {
  Statement insert(
      db, "INSERT INTO adapters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  return insert.Bind(a.tenant)
      .Bind(a.name)
      .Bind(a.uid)
      .Bind(a.display_name)
      .Bind(a.source_path)
      .Bind(LabelsToJson(a.labels).Dump())
      .Bind(a.pinned)
      .Bind(a.etag)
      .Bind(a.create_time)
      .Bind(a.update_time)
      .Bind(NameOrEmpty(a.merge_policy))
      .Run();
}

absl::Status UpdateAdapterRow(Database& db, const Registry::Adapter& a) {
  Statement update(db,
                   "UPDATE adapters SET display_name = ?, source_path = ?, "
                   "labels = ?, pinned = ?, etag = ?, update_time = ?, "
                   "merge_policy = ? "
                   "WHERE tenant = ? AND name = ?");
  RETURN_IF_ERROR(update.Bind(a.display_name)
                      .Bind(a.source_path)
                      .Bind(LabelsToJson(a.labels).Dump())
                      .Bind(a.pinned)
                      .Bind(a.etag)
                      .Bind(a.update_time)
                      .Bind(NameOrEmpty(a.merge_policy))
                      .Bind(a.tenant)
                      .Bind(a.name)
                      .Run());
  return db.changes() == 1 ? absl::OkStatus()
                           : AdapterNotFound(a.tenant, a.name);
}

absl::Status InsertVersion(Database& db, const AdapterVersionInfo& v) {
  Statement insert(db,
                   "INSERT INTO versions VALUES "
                   "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  return insert.Bind(v.key.tenant)
      .Bind(v.key.name)
      .Bind(v.key.version)
      .Bind(v.key.digest.ToHex())
      .Bind(v.base_fingerprint.ToHex())
      .Bind(v.create_time)
      .Bind(v.max_rank)
      .Bind(v.alpha)
      .Bind(v.use_rslora)
      .Bind(StringsToJson(v.target_modules).Dump())
      .Bind(StringsToJson(v.warnings).Dump())
      .Bind(ModulesToJson(v.modules).Dump())
      .Bind(v.size_bytes)
      .Bind(FeaturesToJson(v.features).Dump())
      .Run();
}

absl::Status ReplaceAlias(Database& db, const Alias& alias) {
  Statement remove(db, "DELETE FROM aliases WHERE tenant = ? AND name = ?");
  RETURN_IF_ERROR(remove.Bind(alias.tenant).Bind(alias.name).Run());
  RETURN_IF_ERROR(InsertAliasRow(db, alias));
  for (size_t i = 0; i < alias.targets.size(); ++i) {
    RETURN_IF_ERROR(InsertTarget(db, alias, "serve", i, alias.targets[i]));
  }
  if (alias.shadow.has_value()) {
    const AliasShadow& shadow = *alias.shadow;
    RETURN_IF_ERROR(InsertTarget(db, alias, "shadow", 0,
                                 {shadow.adapter, shadow.version, 0},
                                 shadow.share));
  }
  if (alias.previous.has_value()) {
    RETURN_IF_ERROR(InsertTarget(db, alias, "previous", 0, *alias.previous));
  }
  return absl::OkStatus();
}

absl::Status InsertAudit(Database& db, const AuditEntry& e) {
  Statement insert(db,
                   "INSERT INTO audit (time, actor, action, tenant, name, "
                   "old_target, new_target, reason) "
                   "VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  return insert.Bind(e.time)
      .Bind(e.actor)
      .Bind(e.action)
      .Bind(e.tenant)
      .Bind(e.name)
      .Bind(e.old_target)
      .Bind(e.new_target)
      .Bind(e.reason)
      .Run();
}

absl::StatusOr<std::vector<Registry::Adapter>> ReadAdapters(Database& db) {
  Statement row(db,
                "SELECT tenant, name, uid, display_name, source_path, "
                "labels, pinned, etag, create_time, update_time, merge_policy "
                "FROM adapters ORDER BY tenant, name");
  std::vector<Registry::Adapter> adapters;
  while (row.Next()) {
    Registry::Adapter a;
    a.tenant = row.Text();
    a.name = row.Text();
    a.uid = row.Text();
    a.display_name = row.Text();
    a.source_path = row.Text();
    a.labels = LabelsFromJson(row.JsonText());
    a.pinned = row.Int() != 0;
    a.etag = static_cast<uint64_t>(row.Int());
    a.create_time = row.Time();
    a.update_time = row.Time();
    a.merge_policy = ParseMergePolicy(row.Text());
    adapters.push_back(std::move(a));
  }
  RETURN_IF_ERROR(row.status());
  return adapters;
}

absl::StatusOr<std::vector<AdapterVersionInfo>> ReadVersions(Database& db) {
  Statement row(db,
                "SELECT tenant, name, version, digest, base_fingerprint, "
                "create_time, max_rank, alpha, use_rslora, "
                "target_modules, warnings, modules, size_bytes, features "
                "FROM versions ORDER BY tenant, name, version");
  std::vector<AdapterVersionInfo> versions;
  while (row.Next()) {
    AdapterVersionInfo v;
    v.key.tenant = row.Text();
    v.key.name = row.Text();
    v.key.version = static_cast<uint32_t>(row.Int());
    const absl::StatusOr<Digest> digest = Digest::FromHex(row.Text());
    const absl::StatusOr<Digest> base = Digest::FromHex(row.Text());
    if (!digest.ok() || !base.ok()) {
      return WithReason(absl::DataLossError(absl::StrCat(
                            "registry: version ", Escape(v.key.ToString()),
                            " has no valid digest")),
                        "REGISTRY_DAMAGED");
    }
    v.key.digest = *digest;
    v.base_fingerprint = *base;
    v.create_time = row.Time();
    v.max_rank = row.Int();
    v.alpha = row.Double();
    v.use_rslora = row.Int() != 0;
    v.target_modules = StringsFromJson(row.JsonText());
    v.warnings = StringsFromJson(row.JsonText());
    v.modules = ModulesFromJson(row.JsonText());
    v.size_bytes = row.Int();
    v.features = FeaturesFromJson(row.JsonText());
    versions.push_back(std::move(v));
  }
  RETURN_IF_ERROR(row.status());
  return versions;
}

absl::StatusOr<std::vector<Alias>> ReadAliases(Database& db) {
  std::map<std::pair<std::string, std::string>, Alias> aliases;
  Statement row(db,
                "SELECT tenant, name, etag, max_error_rate, max_latency, "
                "window, min_requests FROM aliases");
  while (row.Next()) {
    Alias alias;
    alias.tenant = row.Text();
    alias.name = row.Text();
    alias.etag = static_cast<uint64_t>(row.Int());
    alias.rule = ReadRule(row);
    aliases[{alias.tenant, alias.name}] = std::move(alias);
  }
  RETURN_IF_ERROR(row.status());
  Statement target(db,
                   "SELECT tenant, alias, role, target, version, weight, share "
                   "FROM alias_targets ORDER BY tenant, alias, role, position");
  while (target.Next()) {
    const std::string tenant = target.Text();
    Alias& alias = aliases[{tenant, target.Text()}];
    const std::string role = target.Text();
    AliasTarget t;
    t.adapter = target.Text();
    t.version = static_cast<uint32_t>(target.Int());
    t.weight = static_cast<uint32_t>(target.Int());
    if (role == "serve") {
      alias.targets.push_back(std::move(t));
    } else if (role == "shadow") {
      alias.shadow = AliasShadow{t.adapter, t.version, target.Double()};
    } else {
      alias.previous = std::move(t);
    }
  }
  RETURN_IF_ERROR(target.status());
  std::vector<Alias> result;
  for (auto& [key, alias] : aliases) result.push_back(std::move(alias));
  return result;
}

absl::StatusOr<std::vector<AuditEntry>> ReadAuditRows(Database& db,
                                                      const AuditQuery& query) {
  Statement row(db,
                "SELECT id, time, actor, action, tenant, name, old_target, "
                "new_target, reason FROM audit WHERE tenant = ? "
                "AND (? = '' OR name = ?) AND (? = 0 OR id < ?) "
                "ORDER BY id DESC LIMIT ?");
  row.Bind(query.tenant)
      .Bind(query.name)
      .Bind(query.name)
      .Bind(query.before)
      .Bind(query.before)
      .Bind(static_cast<int64_t>(query.limit));
  std::vector<AuditEntry> entries;
  while (row.Next()) {
    AuditEntry e;
    e.id = static_cast<uint64_t>(row.Int());
    e.time = row.Time();
    e.actor = row.Text();
    e.action = row.Text();
    e.tenant = row.Text();
    e.name = row.Text();
    e.old_target = row.Text();
    e.new_target = row.Text();
    e.reason = row.Text();
    entries.push_back(std::move(e));
  }
  RETURN_IF_ERROR(row.status());
  return entries;
}

}  // namespace lorikeet
