#include "server/grpc/convert_aliases.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/text.h"
#include "server/frontend/error.h"
#include "server/grpc/convert.h"

namespace lorikeet {
namespace {

// 0 stands for the default.
absl::StatusOr<RollbackRule> ToRule(const v1::RollbackRule& in) {
  constexpr absl::Duration kMax = absl::Hours(24);
  RollbackRule out;
  if (in.has_max_error_rate()) out.max_error_rate = in.max_error_rate();
  if (in.has_max_latency()) {
    ASSIGN_OR_RETURN(out.max_latency,
                     ToDuration("alias.rollback_rule.max_latency",
                                in.max_latency(), absl::Nanoseconds(1), kMax));
  }
  if (in.has_window()) {
    ASSIGN_OR_RETURN(out.window,
                     ToDuration("alias.rollback_rule.window", in.window(),
                                absl::Seconds(1), kMax));
  }
  if (in.min_requests() > 0) out.min_requests = in.min_requests();
  return out;
}

void FillRule(const RollbackRule& in, v1::RollbackRule* out) {
  out->set_max_error_rate(in.max_error_rate);
  if (in.max_latency != absl::InfiniteDuration()) {
    ToProto(in.max_latency, out->mutable_max_latency());
  }
  ToProto(in.window, out->mutable_window());
  out->set_min_requests(static_cast<uint32_t>(in.min_requests));
}

}  // namespace

absl::StatusOr<AliasInput> ToAliasInput(const v1::Alias& in,
                                        const std::string& actor) {
  AliasInput out;
  ASSIGN_OR_RETURN(ResourceName name,
                   ParseName("alias.name", "aliases", in.name()));
  out.tenant = std::move(name.tenant);
  out.alias = std::move(name.id);
  const size_t count = static_cast<size_t>(in.targets_size());
  if (count < 1 || count > kMaxAliasTargets) {
    return RangeError("alias.targets size", absl::StrCat(count),
                      absl::StrCat("[1, ", kMaxAliasTargets, "]"));
  }
  for (const v1::AliasTarget& target : in.targets()) {
    out.targets.push_back({target.version(), target.weight()});
  }
  if (in.has_shadow()) {
    if (in.shadow().version().empty()) {
      return FieldError("alias.shadow.version", "is missing");
    }
    out.shadow = in.shadow().version();
    out.shadow_share = in.shadow().share();
  }
  if (in.has_rollback_rule()) {
    ASSIGN_OR_RETURN(out.rule, ToRule(in.rollback_rule()));
  }
  ASSIGN_OR_RETURN(out.change.etag, ParseEtag(in.etag()));
  out.change.actor = actor;
  return out;
}

void ToProto(const AliasView& in, v1::Alias* out) {
  const AliasInfo& info = in.info;
  out->set_name(AliasName(info.tenant, info.name));
  for (const AliasTarget& target : info.targets) {
    v1::AliasTarget* const t = out->add_targets();
    t->set_version(target.ToString());
    t->set_weight(target.weight);
    const auto it = in.counts.targets.find({target.adapter, target.version});
    if (it == in.counts.targets.end()) continue;
    t->set_requests(static_cast<uint64_t>(it->second.requests));
    t->set_errors(static_cast<uint64_t>(it->second.errors));
    ToProto(it->second.latency_p95, t->mutable_latency_p95());
  }
  if (info.shadow.has_value()) {
    v1::AliasShadow* const shadow = out->mutable_shadow();
    shadow->set_version(info.shadow->ToString());
    shadow->set_share(info.shadow->share);
    shadow->set_equal(static_cast<uint64_t>(in.counts.shadow.equal));
    shadow->set_different(static_cast<uint64_t>(in.counts.shadow.different));
    shadow->set_failed(static_cast<uint64_t>(in.counts.shadow.failed));
    shadow->set_skipped(static_cast<uint64_t>(in.counts.shadow.skipped));
  }
  if (info.rule.has_value()) FillRule(*info.rule, out->mutable_rollback_rule());
  if (info.previous.has_value()) out->set_previous(info.previous->ToString());
  out->set_etag(absl::StrCat(info.etag));
}

void ToProto(const AuditEntry& in, v1::AuditEntry* out) {
  out->set_id(in.id);
  ToProto(in.time, out->mutable_time());
  out->set_actor(in.actor);
  out->set_action(in.action);
  out->set_resource(in.name);
  out->set_old_target(in.old_target);
  out->set_new_target(in.new_target);
  out->set_reason(IsValidUtf8(in.reason) ? in.reason : Escape(in.reason, 1000));
}

}  // namespace lorikeet
